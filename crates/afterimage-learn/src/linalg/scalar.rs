//! The floating-point types of the numerical code: `f32` in production, `f64` for checking formulas.
use ndarray::NdFloat;

/// `f32` or `f64`, with the few functions that the standard library lacks or that must process whole slices at once.
pub trait Scalar: NdFloat + Default + Send + Sync + 'static {
    /// The error function `2 / sqrt(pi) * integral from 0 to x of exp(-t^2)`. Relative error at most 4e-7 (`f32`) and
    /// 1e-15 (`f64`). The `f32` version has no branch, so that loops over it vectorise.
    fn erf(self) -> Self;
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;
    /// This value as `f64`.
    fn as_f64(self) -> f64;
    /// `x = e^x` for every entry. `f32`: vectorised; relative error at most 1e-7 if the result is a normal number; 0
    /// below about -104, infinity above about 88.7.
    fn exp_in_place(x: &mut [Self]);
}

impl Scalar for f32 {
    #[inline(always)]
    fn erf(self) -> Self {
        // erf(x) = x P(x^2) / Q(x^2) on |x| <= 3.925, where erf is 1 to the last bit; an equal-ripple fit of erf(x) / x
        // (largest error of the fit 2e-8; the rest of the 4e-7 is rounding).
        const P: [f32; 6] = [
            std::f32::consts::FRAC_2_SQRT_PI,
            1.905_928_7e-1,
            5.276_918e-2,
            3.772_511_4e-3,
            2.848_425_6e-4,
            2.046_033_6e-6,
        ];
        const Q: [f32; 6] = [1.0, 5.022_412_5e-1, 1.141_823_5e-1, 1.498_312_1e-2, 1.163_848_1e-3, 3.804_778_7e-5];
        let x = clamp(self, -3.925, 3.925);
        let t = x * x;
        let p = ((((P[5] * t + P[4]) * t + P[3]) * t + P[2]) * t + P[1]) * t + P[0];
        let q = ((((Q[5] * t + Q[4]) * t + Q[3]) * t + Q[2]) * t + Q[1]) * t + Q[0];
        clamp(x * p / q, -1.0, 1.0)
    }

    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn as_f64(self) -> f64 {
        f64::from(self)
    }

    fn exp_in_place(x: &mut [Self]) {
        for x in x {
            *x = exp(*x);
        }
    }
}

impl Scalar for f64 {
    fn erf(self) -> Self {
        let x = self.abs();
        if x.is_nan() {
            return self;
        }
        if x >= 6.0 {
            return 1.0f64.copysign(self);
        }
        // 2 / sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 * 3 * ... * (2n+1)) (Abramowitz & Stegun 7.1.6): every term
        // is positive, so nothing cancels.
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term > sum * 1e-18 {
            odd += 2.0;
            term *= 2.0 * x * x / odd;
            sum += term;
        }
        (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum).copysign(self)
    }

    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn as_f64(self) -> f64 {
        self
    }

    fn exp_in_place(x: &mut [Self]) {
        for x in x {
            *x = x.exp();
        }
    }
}

/// Like `f32::clamp`, but as two plain selections, which vectorise on every target. NaN stays NaN.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `e^x = 2^n e^r` with integer `n` and `|r| <= ln 2 / 2`; `e^r` by its Taylor series to the seventh power (the
/// remainder is below 1e-8). No branch, no table, no fused multiply-add: it vectorises on baseline x86-64.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it moves the integer part of a small number into the low bits.
    const SHIFT: f32 = 12_582_912.0;
    /// `ln 2` in two parts; products of the first with `|n| < 512` are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = clamp(x, -105.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    let whole = shifted - SHIFT;
    let r = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let q = ((((1.0 / 5040.0 * r + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5;
    // 2^n in two factors, so that results near the ends of the range are correct too.
    let half = n >> 1;
    (1.0 + (r + r * r * q)) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a method, because the standard library may add one with that name.
    fn erf<T: Scalar>(x: T) -> T {
        Scalar::erf(x)
    }

    #[test]
    fn exp_in_f32_is_within_1e_7() {
        let x: Vec<f32> = (-8_700_000..=8_800_000).step_by(7).map(|i| i as f32 * 1e-5).collect();
        let mut y = x.clone();
        f32::exp_in_place(&mut y);
        for (x, y) in x.into_iter().zip(y) {
            let right = f64::from(x).exp();
            let error = ((f64::from(y) - right) / right).abs();
            assert!(error <= 1e-7, "{x}: {error:e}");
        }
    }

    #[test]
    fn exp_in_f32_at_the_ends() {
        let mut x = [f32::NEG_INFINITY, -1e9, -104.5, -95.0, 0.0, 88.7, 89.0, f32::INFINITY, f32::NAN];
        f32::exp_in_place(&mut x);
        assert_eq!(&x[..3], &[0.0; 3]);
        assert!(x[3] > 0.0 && x[3] < 1e-41, "{:e}", x[3]);
        assert_eq!(x[4], 1.0);
        assert!((f64::from(x[5]) / 88.7f32.as_f64().exp() - 1.0).abs() < 1e-6);
        assert_eq!(&x[6..8], &[f32::INFINITY; 2]);
        assert!(x[8].is_nan());
    }

    #[test]
    fn erf_in_f64_at_known_points() {
        // NIST, Digital Library of Mathematical Functions, table 7.23 and its continuation.
        let known = [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ];
        for (x, right) in known as [(f64, f64); 4] {
            assert!((erf(x) - right).abs() < 2e-15, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!((erf(0.0), erf(7.0), erf(f64::NEG_INFINITY)), (0.0, 1.0, -1.0));
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn erf_in_f32_follows_f64() {
        for x in (1..=600_000).map(|i| i as f32 * 1e-5) {
            let right = erf(f64::from(x));
            let error = ((f64::from(erf(x)) - right) / right).abs();
            assert!(error < 4e-7, "{x}: {error:e}");
        }
        assert_eq!((erf(1e30f32), erf(f32::NEG_INFINITY), erf(0.0f32)), (1.0, -1.0, 0.0));
        assert!(erf(f32::NAN).is_nan());
    }
}
