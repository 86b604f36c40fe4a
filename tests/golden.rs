//! Compares the learning mathematics with PyTorch's autograd in `f64` (`data/golden.json`).
//!
//! Errors of arrays are relative to the largest entry of the array; errors of scalars are relative to the scalar.
#![allow(clippy::unwrap_used, reason = "tests")]

use afterimage::frame::Timestamp;
use afterimage::head::{GridShape, Mlp, ScatterStats, SfaFit, slow_from};
use afterimage::linalg::{Scalar, product, unit_rows};
use afterimage::objective::{
    BarlowTwins, Dcl, InfoNce, LossAndGrad, NtXent, Objective, PairMask, SupCon, VicReg, byol, moco, simsiam,
};
use afterimage::optimizer::{AdamW, AdamWState, Lars, LarsState, Sgd, SgdState, clip_norm};
use afterimage::sampling::{Block, PairSampler};
use afterimage_learn::config::SamplingSettings;
use ndarray::{Array1, Array2, Axis, concatenate, s};
use serde_json::Value;

/// Bounds on the error in `f64` and `f32`.
const F64: f64 = 1e-10;
const F32: f64 = 1e-5;

/// The entry whose key begins with `key`.
fn golden(key: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("data/golden.json")).unwrap();
    all.as_object().unwrap().iter().find(|(name, _)| name.starts_with(key)).unwrap().1.clone()
}

/// All numbers of nested lists, in order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

/// Largest error relative to the largest entry of `right`.
fn error<'a, T: Scalar>(found: impl IntoIterator<Item = &'a T>, right: &Value) -> f64 {
    let right = numbers(right);
    let found: Vec<f64> = found.into_iter().map(|x| x.as_f64()).collect();
    assert_eq!(found.len(), right.len());
    assert!(found.iter().all(|x| x.is_finite()));
    let largest = right.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    found.iter().zip(&right).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

/// `X(n, d, s)[i, j] = sin(0.37 (i d + j) + s) + 0.5 cos(1.3 i j + 2 s)`, the closed form of all inputs.
fn x(n: usize, d: usize, phase: f64) -> Array2<f64> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        (0.37 * (i * d + j) as f64 + phase).sin() + 0.5 * (1.3 * (i * j) as f64 + 2.0 * phase).cos()
    })
}

fn cast<T: Scalar>(x: Array2<f64>) -> Array2<T> {
    x.mapv(T::of)
}

/// A loss over the pairs `X(n, 8, first)`, `X(n, 8, second)` against the entry `key`.
fn pairs<T: Scalar>(
    objective: &dyn Objective<T>,
    (n, first, second): (usize, f64, f64),
    negatives: Option<&Array2<bool>>,
    key: &str,
    bound: f64,
) {
    let right = golden(key);
    let relations = PairMask { negatives: negatives.map(|x| x.view()), segments: None };
    let (a, b) = (cast::<T>(x(n, 8, first)), cast::<T>(x(n, 8, second)));
    let loss = objective.loss(a.view(), b.view(), &relations);
    let worst = [
        error([&loss.value], &right["loss"]),
        error(&loss.grad_a, &right["grads"][0]),
        error(&loss.grad_b, &right["grads"][1]),
    ];
    println!("{key} in {}: {worst:?}", std::any::type_name::<T>());
    assert!(worst.iter().all(|&error| error < bound), "{key}: {worst:?}");
}

fn one_sided<T: Scalar>(loss: &LossAndGrad<T>, key: &str, bound: f64) {
    let right = golden(key);
    let worst = [error([&loss.value], &right["loss"]), error(&loss.grad, &right["grads"][0])];
    println!("{key} in {}: {worst:?}", std::any::type_name::<T>());
    assert!(worst.iter().all(|&error| error < bound), "{key}: {worst:?}");
}

const AB: (usize, f64, f64) = (4, 0.11, 0.53);

fn contrastive<T: Scalar>(bound: f64) {
    let (a, b) = (cast::<T>(x(4, 8, 0.11)), cast::<T>(x(4, 8, 0.53)));
    let (queue, _) = unit_rows(&cast::<T>(x(16, 8, 1.7)));
    for temperature in [0.07, 0.1, 0.2, 0.5] {
        let key = format!("nt_xent a=X(4,8,.11) b=X(4,8,.53) t={temperature}");
        pairs::<T>(&NtXent { temperature }, AB, None, &key, bound);
        // Without segments the positives are the partners only.
        pairs::<T>(&SupCon { temperature }, AB, None, &key, bound);
        pairs::<T>(&Dcl { temperature }, AB, None, &format!("dcl a b t={temperature}"), bound);
        let loss = moco(a.view(), b.view(), queue.view(), &[], temperature);
        one_sided(&loss, &format!("moco q=a k=b queue=unit rows of X(16,8,1.7) t={temperature}"), bound);
    }
    let negatives = Array2::from_shape_fn((4, 4), |at| at != (0, 1) && at != (1, 0));
    pairs::<T>(&NtXent { temperature: 0.1 }, AB, Some(&negatives), "nt_xent a b t=0.1, pair (0,1) masked", bound);
}

fn without_negatives<T: Scalar>(bound: f64) {
    let sixteen = (16, 0.2, 0.21);
    pairs::<T>(&VicReg::default(), sixteen, None, "vicreg X(16,8,.2) X(16,8,.21)", bound);
    pairs::<T>(&BarlowTwins::default(), sixteen, None, "barlow same inputs", bound);
    let (p, z) = (cast::<T>(x(4, 8, 0.11)), cast::<T>(x(4, 8, 0.53)));
    let found = byol(p.view(), z.view());
    one_sided(&found, "byol p=a z=b", bound);
    // The negative cosine is half of it, minus one.
    let half = simsiam(p.view(), z.view());
    let two = T::of(2.0);
    one_sided(
        &LossAndGrad { value: (half.value + T::one()) * two, grad: half.grad * two },
        "byol p=a z=b",
        2.0 * bound,
    );
}

#[test]
fn contrastive_losses_in_f64() {
    contrastive::<f64>(F64);
}

#[test]
fn contrastive_losses_in_f32() {
    contrastive::<f32>(F32);
}

#[test]
fn losses_without_negatives_in_f64() {
    without_negatives::<f64>(F64);
}

#[test]
fn losses_without_negatives_in_f32() {
    without_negatives::<f32>(F32);
}

fn cpc<T: Scalar>(bound: f64) {
    let cells = GridShape { frames: 2, rows: 7, columns: 7 };
    let (predictions, targets) = (cast::<T>(x(98, 8, 0.9)), cast::<T>(x(98, 8, 0.3)));
    for k in 1..=6 {
        let right = golden(&format!("cpc pred=X(98,8,.9) target=X(98,8,.3) as [2,7,7,8] k={k} "));
        let (mut grad_p, mut grad_t) = (Array2::zeros((98, 8)), Array2::zeros((98, 8)));
        let (p, t) = (predictions.view(), targets.view());
        let value = InfoNce { scale: 0.1 }.offset(p, t, cells, k, None, 1.0, grad_p.view_mut(), &mut grad_t);
        let norm = |x: &Array2<T>| x.iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt();
        let worst = [
            error([&value], &right["loss"]),
            error([&norm(&grad_p)], &right["grad_norms"][0]),
            error([&norm(&grad_t)], &right["grad_norms"][1]),
            error(grad_p.iter().take(16), &right["grad_heads"][0]),
            error(grad_t.iter().take(16), &right["grad_heads"][1]),
        ];
        assert!(worst.iter().all(|&error| error < bound), "k={k}: {worst:?}");
    }
}

#[test]
fn cpc_in_f64() {
    cpc::<f64>(F64);
}

#[test]
fn cpc_in_f32() {
    cpc::<f32>(F32);
}

/// Twenty steps of a head 8 -> 16 -> 4; `step` clips, takes the step and returns the norm before clipping.
fn trajectory<T: Scalar>(key: &str, bound: f64, mut step: impl FnMut(&mut Mlp<T>, &mut Mlp<T>) -> f64) {
    let row = |d, phase, factor: f64| cast::<T>(x(1, d, phase) * factor).remove_axis(Axis(0));
    let mut head = Mlp {
        w1: cast(x(16, 8, 0.05) * 0.3),
        b1: row(16, 0.15, 0.1),
        gamma: Array1::ones(16),
        beta: Array1::zeros(16),
        w2: cast(x(4, 16, 0.25) * 0.3),
        b2: row(4, 0.35, 0.1),
    };
    let (mut losses, mut norms, objective) = (Vec::new(), Vec::new(), NtXent { temperature: 0.2 });
    let mut grads = head.zeros_like();
    for s in 0..20 {
        let phase = 0.1 * f64::from(s);
        let both = concatenate![Axis(0), cast::<T>(x(12, 8, phase)), cast::<T>(x(12, 8, phase + 0.07))];
        let (out, cache) = head.forward(both.view());
        let loss = objective.loss(out.slice(s![..12, ..]), out.slice(s![12.., ..]), &PairMask::default());
        head.backward(&cache, concatenate![Axis(0), loss.grad_a, loss.grad_b].view(), &mut grads);
        norms.push(step(&mut head, &mut grads));
        losses.push(loss.value);
    }
    let right = golden(key);
    let mut worst =
        vec![("losses", error(&losses, &right["losses"])), ("norms", error(&norms, &right["grad_norms_before_clip"]))];
    worst.extend(head.parts().map(|(name, part)| (name, error(part, &right["final"][name]))));
    println!("{key} in {}: {worst:?}", std::any::type_name::<T>());
    assert!(worst.iter().all(|&(_, error)| error < bound), "{worst:?}");
}

fn adamw<T: Scalar>(bound: f64) {
    let optimizer = AdamW::new(3e-3, 0.01);
    let mut state = None;
    trajectory::<T>("trajectory adamw", bound, |head, grads| {
        let norm = clip_norm(grads, 1.0);
        optimizer.step(head, grads, state.get_or_insert_with(|| AdamWState::new(head)));
        norm
    });
}

fn sgd<T: Scalar>(bound: f64) {
    let optimizer = Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 1e-4 };
    let mut state = None;
    trajectory::<T>("trajectory sgd", bound, |head, grads| {
        let norm = clip_norm(grads, 1e9);
        optimizer.step(head, grads, state.get_or_insert_with(|| SgdState::new(head)));
        norm
    });
}

#[test]
fn adamw_in_f64() {
    adamw::<f64>(F64);
}

#[test]
fn adamw_in_f32() {
    adamw::<f32>(F32);
}

#[test]
fn sgd_in_f64() {
    sgd::<f64>(F64);
}

#[test]
fn sgd_in_f32() {
    sgd::<f32>(F32);
}

/// Three steps from the gradients of `data/lars.json`, which has its own generator (`tools/make_lars_golden.py`).
fn lars<T: Scalar>(bound: f64) {
    let right: Value = serde_json::from_str(include_str!("data/lars.json")).unwrap();
    let row = |d, phase, factor: f64| cast::<T>(x(1, d, phase) * factor).remove_axis(Axis(0));
    let mut head = Mlp {
        w1: cast::<T>(x(16, 8, 0.05) * 0.3),
        b1: row(16, 0.15, 0.3),
        gamma: row(16, 0.45, 0.3),
        beta: row(16, 0.55, 0.3),
        w2: Array2::zeros((4, 16)),
        b2: Array1::zeros(4),
    };
    let (optimizer, mut state) = (Lars::new(0.3, 0.9, 1e-2), LarsState::new(&head));
    for (s, right) in right["steps"].as_array().unwrap().iter().enumerate() {
        let phase = |part: usize| 1.0 + s as f64 + 0.1 * part as f64;
        let grads = Mlp {
            w1: cast::<T>(x(16, 8, phase(0))),
            b1: row(16, phase(1), 1.0),
            gamma: row(16, phase(2), 1.0),
            beta: row(16, phase(3), 1.0),
            w2: cast::<T>(x(4, 16, phase(4))),
            b2: row(4, phase(5), 1.0),
        };
        optimizer.step(&mut head, &grads, &mut state);
        let worst = head.parts().map(|(name, part)| (name, error(part, &right[name])));
        assert!(worst.iter().all(|&(_, error)| error < bound), "step {s}: {worst:?}");
    }
}

#[test]
fn lars_in_f64() {
    lars::<f64>(F64);
}

#[test]
fn lars_in_f32() {
    lars::<f32>(F32);
}

/// The latents of the slow head: `[200, 12]`.
fn latents() -> Array2<f64> {
    let reversed = x(200, 12, 2.1);
    x(200, 12, 0.3) + &(reversed.slice(s![..;-1, ..]).to_owned() * 0.3)
}

fn slow(fit: &SfaFit, f: &Array2<f64>, bound: f64) {
    let right = golden("slow head");
    let y = product((f - &fit.mean).view(), fit.directions.view());
    let (first, other) = (y.row(0), y.row(7));
    let cosine = first.dot(&other) / (first.dot(&first) * other.dot(&other)).sqrt();
    let projector = product(fit.directions.view(), fit.directions.t());
    let worst = [
        error(&fit.eigenvalues, &right["eigenvalues"]),
        error([&cosine], &right["cos_0_7"]),
        error(projector.row(0), &right["projector_row0"]),
    ];
    println!("slow head: {worst:?}");
    assert!(worst.iter().all(|&error| error < bound), "{worst:?}");
}

#[test]
fn slow_head_in_f64() {
    let f = latents();
    let mean = f.mean_axis(Axis(0)).unwrap();
    let centred = &f - &mean;
    let total = product(centred.t(), centred.view()) / 200.0;
    let apart = &f.slice(s![3.., ..]) - &f.slice(s![..197, ..]);
    let within = product(apart.t(), apart.view()) / (2.0 * 197.0);
    slow(&slow_from(mean, |i, j| total[[i, j]], |i, j| within[[i, j]], 5, 0.1).unwrap(), &f, F64);
}

#[test]
fn slow_head_from_running_statistics() {
    // One block, ten frames a second; pairs exactly three frames apart.
    let f = latents();
    let block = Block {
        number: 0,
        segment: 0,
        index: (0..200).collect(),
        stamps: (0..200).map(|i| Timestamp(i * 100_000_000)).collect(),
        latents: f.mapv(|x| x as f32),
        ..Block::default()
    };
    let mut scatter = ScatterStats::new(12);
    let gaps =
        PairSampler::new(&SamplingSettings { gap_min_secs: 0.3, gap_max_secs: 0.3, ..SamplingSettings::default() });
    scatter.add(&block, &gaps.pairs(&block)).unwrap();
    assert_eq!(scatter.pairs(), 197);
    slow(&scatter.fit(5, 0.1).unwrap(), &f, F32);
}
