use super::*;

/// Scores around `near` and `far`, with a separate wave on each block.
fn made(blocks: usize, near: f64, far: f64, wave: f64) -> Scores {
    let side = |mean: f64, step: f64| (0..blocks).map(|i| mean + wave * (step * i as f64).sin()).collect();
    Scores { next_frame: side(near, 1.3), auc: side(far, 2.1) }
}

fn config() -> Promotion {
    Promotion::default()
}

#[test]
fn the_gate_needs_both_sides() {
    let reference = made(40, 0.85, 0.92, 0.01);
    for (near, far, passes) in
        [(0.02, 0.03, true), (0.02, -0.01, false), (-0.01, 0.03, false), (0.0, 0.0, false), (0.02, 0.0, false)]
    {
        let verdict = gate(&made(40, 0.85 + near, 0.92 + far, 0.02), &reference, &config(), 1);
        assert_eq!(verdict.passed, passes, "{verdict:?}");
        assert!((verdict.next_frame.gain() - near).abs() < 2e-3 && (verdict.auc.gain() - far).abs() < 2e-3);
        assert!(verdict.reason.contains("next-frame") == (passes || near <= 0.0), "{}", verdict.reason);
        assert!(verdict.reason.contains("AUC") == (passes || far <= 0.0), "{}", verdict.reason);
        assert_eq!(verdict.blocks, 40);
    }
    let few = gate(&made(13, 0.9, 0.95, 0.0), &made(13, 0.8, 0.9, 0.0), &config(), 1);
    assert!(
        !few.passed && few.reason == "13 held-out blocks that are long enough, at least 14 are needed",
        "{}",
        few.reason
    );
    assert!(gate(&made(14, 0.9, 0.95, 0.0), &made(14, 0.8, 0.9, 0.0), &config(), 1).passed);
}

#[test]
fn a_gain_within_its_own_spread_is_not_sure() {
    // Every other block gains .05, the others lose .04: the mean is above 0, but its lower bound is not.
    let reference = made(40, 0.85, 0.92, 0.0);
    let mut candidate = reference.clone();
    let change =
        |x: &mut Vec<f64>| x.iter_mut().enumerate().for_each(|(i, x)| *x += if i % 2 == 0 { 0.05 } else { -0.04 });
    change(&mut candidate.next_frame);
    change(&mut candidate.auc);
    let verdict = gate(&candidate, &reference, &config(), 1);
    assert!(
        !verdict.passed && verdict.next_frame.gain() > 0.004 && verdict.next_frame.lower_bound < 0.0,
        "{verdict:?}"
    );
    assert!(
        non_inferior(&candidate, &reference, &config(), 1).passed,
        "not significantly worse, and better on average"
    );
    // The normal bound: 0.005 -+ 1.645 * 0.045 / sqrt(40).
    assert!((verdict.next_frame.lower_bound - (0.005 - 0.0117)).abs() < 2e-3, "{verdict:?}");
    assert!((verdict.next_frame.upper_bound - (0.005 + 0.0117)).abs() < 2e-3, "{verdict:?}");
}

#[test]
fn replacing_asks_for_no_loss_and_some_gain() {
    let exported = made(40, 0.87, 0.96, 0.01);
    let against =
        |near: f64, far: f64| non_inferior(&made(40, 0.87 + near, 0.96 + far, 0.012), &exported, &config(), 2);
    assert!(against(0.002, 0.002).passed);
    let lost = against(-0.02, 0.03);
    assert!(
        !lost.passed && lost.reason.starts_with("next-frame 0.8701 -> 0.8501 (-0.0200, from -0.02"),
        "{}",
        lost.reason
    );
    assert!(lost.reason.ends_with("significantly worse"), "{}", lost.reason);
    assert!(!against(0.03, -0.02).passed);
    let equal = non_inferior(&exported, &exported, &config(), 2);
    assert!(!equal.passed && equal.reason.contains("together +0.0000: not better"), "{}", equal.reason);
}

#[test]
fn short_blocks_are_left_out_and_broken_scores_never_pass() {
    let (mut candidate, mut reference) = (made(20, 0.9, 0.95, 0.0), made(20, 0.8, 0.9, 0.0));
    for x in [&mut candidate.auc, &mut reference.auc] {
        x[3] = f64::NAN;
        x[4] = f64::NAN;
    }
    let verdict = gate(&candidate, &reference, &config(), 3);
    assert!(verdict.passed && verdict.blocks == 18, "{verdict:?}");
    for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut other = candidate.clone();
        other.next_frame[7] = broken;
        for verdict in [
            gate(&other, &reference, &config(), 3),
            non_inferior(&other, &reference, &config(), 3),
            gate(
                &candidate,
                &Scores { next_frame: other.next_frame.clone(), auc: reference.auc.clone() },
                &config(),
                3,
            ),
        ] {
            assert!(!verdict.passed && verdict.reason == "next-frame: scores that are not finite", "{verdict:?}");
            assert!(serde_json::to_string(&verdict).is_ok());
        }
    }
    let other = gate(&made(21, 0.9, 0.95, 0.0), &reference, &config(), 3);
    assert!(!other.passed && other.reason.contains("scores of 21 and of 20 blocks"), "{}", other.reason);
    let nothing = Scores { next_frame: vec![f64::NAN; 20], auc: vec![f64::NAN; 20] };
    assert!(!gate(&nothing, &nothing, &Promotion { min_blocks: 0, ..config() }, 3).passed);
    assert!(!non_inferior(&nothing, &nothing, &Promotion { min_blocks: 0, ..config() }, 3).passed);
}

#[test]
fn the_quantile_counts_from_the_end_it_bounds() {
    let differences: Vec<f64> = (0..30).map(|i| (i as f64 * 0.7).sin()).collect();
    let at = |quantile: f64| bounds(&differences, &Promotion { quantile, resamples: 201, ..config() }, 4, 0);
    let (mut means, mut rng) = (Vec::new(), ChaCha8Rng::seed_from_u64(4));
    for _ in 0..201 {
        means.push((0..30).map(|_| differences[uniform_below(&mut rng, 30)]).sum::<f64>() / 30.0);
    }
    means.sort_unstable_by(f64::total_cmp);
    assert_eq!(at(0.05), (means[10], means[190]));
    assert_eq!(at(0.5), (means[100], means[100]));
    assert_eq!(at(0.001), (means[0], means[200]));
    assert_eq!(at(0.05), at(0.05));
    assert_ne!(at(0.05), bounds(&differences, &Promotion { resamples: 201, ..config() }, 5, 0), "another seed");
}

#[test]
fn only_what_is_surely_worse_is_harmful() {
    let frozen = made(40, 0.85, 0.92, 0.01);
    let harm = |near: f64, far: f64| regression(&made(40, 0.85 + near, 0.92 + far, 0.012), &frozen, &config(), 3);
    assert_eq!((harm(0.01, 0.01), harm(0.0, 0.0)), (None, None));
    let near = harm(-0.02, 0.05).unwrap();
    assert!(near.starts_with("next-frame 0.8501 -> 0.8301") && near.ends_with("significantly worse"), "{near}");
    assert!(harm(0.05, -0.02).unwrap().starts_with("AUC"));
    assert_eq!(harm(-0.02, -0.02).unwrap().matches("significantly worse").count(), 2);
    let few = made(13, 0.85, 0.92, 0.0);
    assert_eq!(regression(&made(13, 0.5, 0.5, 0.0), &few, &config(), 3), None, "too few blocks say nothing");
}
