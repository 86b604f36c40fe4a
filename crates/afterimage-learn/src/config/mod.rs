//! The settings of the learner. Each part has the struct that it needs; reading them from text is the caller's.
mod head_spec;
pub mod objective;
mod ranges;

use serde::{Deserialize, Serialize};

pub use head_spec::{HeadKind, HeadSpec, check as check_candidates};
pub use ranges::{RANGES, WORDS};

/// Everything that decides what is learned and promoted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnerConfig {
    /// What is learned, from which pairs, at what pace.
    pub learn: Training,
    /// The shape of the head.
    pub head: Head,
    /// When a learned head may replace the exported one.
    pub promotion: Promotion,
}

/// `[learn]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Training {
    /// Seed of every random choice.
    pub seed: u64,
    /// At most so many frames a second are learned from (all are embedded): neighbours closer in time teach noise only.
    pub frames_per_sec: f64,
    /// Share of one core the learner may use on a live source. A bounded source is learned from completely.
    pub cpu_share: f64,
    /// Which frames make a pair: `range` (all whose gap lies in the range) or `adaptive` (for each the smallest gap of the
    /// range at which the latent has moved as much as latents usually do in a second).
    pub gap: String,
    /// Least time between the two frames of a pair, seconds.
    pub gap_min_secs: f64,
    /// Most time between the two frames of a pair, seconds.
    pub gap_max_secs: f64,
    /// Pairs that an anchor is part of in one batch.
    pub positives: usize,
    /// Which pairs of a batch are no negatives of each other: those of the same `block`; also those of the same camera
    /// within `false_negative_secs` (`window`), of the same `segment`, or near each other (`similar`).
    pub false_negatives: String,
    /// Seconds within which frames of one camera are no negatives (`window`).
    pub false_negative_secs: f64,
    /// Cosine of frozen latents above which frames are no negatives (`similar`); 0: 0.9 times the median of the pairs.
    pub false_negative_similarity: f64,
    /// A scene cut: cosine distance between neighbouring latents above this ...
    pub cut_latent_distance: f64,
    /// ... and mean difference of the luma thumbnails (0 to 1) above this.
    pub cut_luma_distance: f64,
    /// A jump that is undone within so many seconds, or by the next frame, is a flash and no cut.
    pub flash_secs: f64,
    /// Neighbouring latents nearer than this cosine distance are a still scene: nothing to learn, skipped.
    pub still_distance: f64,
    /// Samples after which a scene in which nothing but noise changes, of any level, is a still scene, too (see
    /// `pairs/stillness.rs`); 0: `still_distance` alone tells.
    pub still_frames: u64,
    /// Share of the frames that an augmented view is encoded of too: instance discrimination, as a third statistic of
    /// the slow head. Costs as many encoder passes; a live source skips views while frames wait.
    pub views: f64,
    /// What a view is made with: `flip`, `crop`, `colour`, `grey`, `blur`.
    pub view_kinds: Vec<String>,
    /// How loud the views are beside the pairs in the within-pair scatter (1: the same trace).
    pub view_weight: f64,
    /// Learned frames before the first fit; later fits come at `refit_growth` times as many, and so on.
    pub first_fit_frames: u64,
    /// Growth of the schedule of fits.
    pub refit_growth: f64,
    /// At the most so many learned frames lie between two fits.
    pub refit_max_frames: u64,
    /// Frames between a fit's data and the first frame it may be used on (bounded sources: exactly then).
    pub promote_lag_frames: u64,
    /// Memory for replayed latents (f16), megabytes.
    pub replay_megabytes: f64,
    /// What replay keeps of the past: `min-redundancy` (what has its like in memory goes first) or `reservoir` (an even
    /// sample).
    pub replay: String,
    /// Times that a latent may be drawn from replay until the memory has taken in as much as it holds.
    pub replay_uses: u32,
    /// Latents that may wait for the learner; a live source drops more (counted), a file waits.
    pub queue_latents: usize,
    /// Learned frames per gradient step; 0 trains no residual MLP.
    pub frames_per_step: u64,
    /// What the residual MLP is trained for: one objective or a weighted sum, such as `dcl + 0.1 vicreg`
    /// ([`objective::Objective`]).
    pub objective: String,
    /// Pairs in a batch, each of another segment where there are enough.
    pub batch_pairs: usize,
    /// Temperature of the contrastive objectives.
    pub temperature: f64,
    /// Memory of the slower head of moco and byol, per step.
    pub momentum: f64,
    /// What moco's queue holds: `latents` (projected again and again, never stale) or `keys` (as they once were).
    pub queue: String,
    /// Entries of moco's queue.
    pub queue_len: usize,
    /// Weight of the anchor, which keeps the angles within a batch as they are under the exported head; 0: none.
    pub anchor: f64,
    /// `adamw`, `sgd` (with momentum) or `lars`.
    pub optimizer: String,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Memory of past gradients, of sgd and lars.
    pub sgd_momentum: f64,
    /// Weight decay (adamw and lars: of matrices only).
    pub weight_decay: f64,
    /// Steps of linear warm-up after each fit.
    pub warmup_steps: u64,
    /// The learning rate after the warm-up: `constant`, or `cosine` down to zero at `schedule_steps`.
    pub schedule: String,
    /// Steps of a cosine schedule, counted from each fit, the warm-up among them.
    pub schedule_steps: u64,
    /// Decay of the average of the weights that is judged in place of the last ones, per step; 0: the last ones.
    pub ema: f64,
    /// Gradients are scaled down to this norm.
    pub clip_norm: f64,
    /// Memory of the orthogonal gradient, which leaves out what each gradient shares with those before; 0: off.
    pub orthogonal_gradient: f64,
    /// First offset that `cpc` predicts, in rows (of a grid) or moments (of a sequence). Patches that overlap by half share
    /// pixels with the row below: 2 leaves that out.
    pub cpc_first: usize,
    /// Last offset that `cpc` predicts, at most the rows of a grid less one.
    pub cpc_steps: usize,
    /// Moments of a sequence of `cpc` over vectors: consecutive learned frames of one block.
    pub cpc_moments: usize,
    /// Grids, or sequences, in a batch of `cpc`.
    pub cpc_batch: usize,
    /// Dimensions of the space in which `cpc` compares predictions with targets.
    pub cpc_dim: usize,
    /// Channels inside a block of the context network of `cpc`.
    pub cpc_width: usize,
    /// Residual blocks of the context network: it sees as many rows (or moments) back.
    pub cpc_blocks: usize,
    /// Factor of the inner products of `cpc`.
    pub cpc_scale: f64,
    /// Other frames of the same segment are no negatives of `cpc`.
    pub cpc_mask_segments: bool,
    /// Embedding of `cpc` over grids: `projected` (pooled projected cells) or `context` (pooled context).
    pub cpc_embedding: String,
}

/// `[head]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// Dimensions of the slow head, where a candidate does not say otherwise.
    pub dim: usize,
    /// Heads to try at every fit, in this order; see [`HeadSpec`]. The first that passes the judge is promoted, or, with
    /// `promotion.probe`, of those that pass the one that is best on the labelled images.
    pub candidates: Vec<String>,
    /// Shrinkage of the within-pair scatter towards a multiple of the identity.
    pub shrinkage: f64,
    /// Hidden units of the residual MLP.
    pub hidden: usize,
    /// Weight of the residual MLP in the embedding.
    pub alpha: f64,
    /// A promoted head is turned onto the one before it, so that old embeddings stay as near as they can to new ones.
    pub align: bool,
}

/// `[promotion]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Promotion {
    /// Every so-manyeth block of frames is held out: judged on, never learned from.
    pub holdout_every: u64,
    /// A segment longer than this is held out or learned from in blocks of this length, seconds.
    pub block_secs: f64,
    /// Held-out blocks needed before anything is promoted.
    pub min_blocks: usize,
    /// Held-out frames kept; the oldest blocks go first.
    pub max_frames: usize,
    /// Draws of the paired bootstrap.
    pub resamples: usize,
    /// Quantile of the bootstrap that must be above zero.
    pub quantile: f64,
    /// Stream time between two promotions, seconds at least: each opens a new space of embeddings. The last fit of a
    /// bounded source and the return to the frozen latents do not wait.
    pub min_interval_secs: f64,
    /// Gradient steps between two checks of the residual on held-out blocks.
    pub guard_steps: u64,
    /// Folder with labelled images (`CLASS/*.jpg`) that must also agree to a promotion, and choose among heads that pass
    /// the label-free gate; empty: none.
    pub probe: String,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            seed: 0,
            frames_per_sec: 10.0,
            cpu_share: 0.25,
            gap: "range".into(),
            gap_min_secs: 0.1,
            gap_max_secs: 1.2,
            positives: 1,
            false_negatives: "block".into(),
            false_negative_secs: 30.0,
            false_negative_similarity: 0.0,
            cut_latent_distance: 0.35,
            cut_luma_distance: 0.08,
            flash_secs: 0.25,
            still_distance: 1e-5,
            still_frames: 64,
            views: 0.0,
            view_kinds: vec!["colour".into()],
            view_weight: 1.0,
            first_fit_frames: 512,
            refit_growth: 2.0,
            refit_max_frames: 16384,
            promote_lag_frames: 256,
            replay_megabytes: 48.0,
            replay: "min-redundancy".into(),
            replay_uses: 64,
            queue_latents: 512,
            frames_per_step: 8,
            objective: "nt-xent".into(),
            batch_pairs: 64,
            temperature: 0.1,
            momentum: 0.996,
            queue: "latents".into(),
            queue_len: 4096,
            anchor: 0.0,
            optimizer: "adamw".into(),
            learning_rate: 2e-4,
            sgd_momentum: 0.9,
            weight_decay: 1e-4,
            warmup_steps: 50,
            schedule: "constant".into(),
            schedule_steps: 1000,
            ema: 0.0,
            clip_norm: 1.0,
            orthogonal_gradient: 0.0,
            cpc_first: 1,
            cpc_steps: 5,
            cpc_moments: 12,
            cpc_batch: 16,
            cpc_dim: 64,
            cpc_width: 64,
            cpc_blocks: 5,
            cpc_scale: 0.1,
            cpc_mask_segments: true,
            cpc_embedding: "projected".into(),
        }
    }
}

impl Default for Head {
    fn default() -> Self {
        let candidates = ["slow", "slow dim=192", "slow+mlp", "mean", "frozen+slow"].map(str::to_owned).to_vec();
        Self { dim: 256, candidates, shrinkage: 0.2, hidden: 512, alpha: 1.0, align: true }
    }
}

impl Default for Promotion {
    fn default() -> Self {
        Self {
            holdout_every: 5,
            block_secs: 4.0,
            min_blocks: 14,
            max_frames: 2048,
            resamples: 1000,
            quantile: 0.05,
            min_interval_secs: 20.0,
            guard_steps: 50,
            probe: String::new(),
        }
    }
}

impl Training {
    /// Rows or moments are predicted from those before: a term of the objective is `cpc`.
    pub fn has_cpc(&self) -> bool {
        objective::has(self, objective::Objective::Cpc)
    }
}

/// Levenshtein distance.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
