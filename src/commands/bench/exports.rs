//! `bench exports`: the cost of writing and reading embeddings for the inference loop, compared with the same pipeline
//! without exports.
//!
//! Runs intervals of `--secs`, interleaved in rounds whose order rotates: no export, each file format, and records to
//! the ring and to the socket with one reader each. The ratio of frames per second is taken within each round, and its
//! median counts. Then, next to a busy pipeline, it sends 1,000 messages of 2 KiB per second through a ring and
//! measures the time from the writer's call to the copy of a reader that polls every 200 microseconds, as
//! `tools/clients/ring.py` does.
use std::fmt::Write;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{BenchHarness, Interval};
use super::{SECS, median};
use crate::cli;
use crate::commands::Output;
use crate::config::Config;
use crate::config::loader::load;
use crate::error::{Error, Result};
use crate::export::sinks::{LiveSinks, shm_ring};
use crate::latency_histogram::LatencyHistogram;

/// Minimum ratio of frames per second that the pipeline must keep.
const LEAST: f64 = 0.98;
/// Maximum 99th percentile of the message latency, in milliseconds.
const MOST_RING_MS: f64 = 1.0;
const RING_BYTES: usize = 2048;
const RING_PERIOD: Duration = Duration::from_millis(1);
const POLL: Duration = Duration::from_micros(200);

/// Name and settings of each export; the first exports nothing.
const WAYS: [(&str, &[&str]); 8] = [
    ("nothing", &["export.embeddings=false"]),
    ("npy", &["export.format=npy"]),
    ("npy f16", &["export.format=npy", "export.dtype=f16"]),
    ("parquet", &["export.format=parquet"]),
    ("safetensors", &["export.format=safetensors"]),
    ("npy, latents", &["export.format=npy", "export.latents=true"]),
    ("ring", &["export.embeddings=false"]),
    ("socket", &["export.embeddings=false"]),
];

pub(super) fn run(args: &cli::BenchExportsArgs, started: Instant) -> Result<Output> {
    if !SECS.contains(&args.secs) {
        let (least, most) = (SECS.start(), SECS.end());
        return Err(Error::usage(format!("--secs is {}; it must lie between {least} and {most}", args.secs)));
    }
    let base = load(args.common.config.as_deref(), &args.common.set)?;
    let mut rig = BenchHarness::open(&args.encoder, &args.source, base, started)?;
    let secs = Duration::from_secs_f64(args.secs);
    let mut rounds = Vec::new();
    for number in 0..args.rounds as usize {
        let mut round = [Interval::default(); WAYS.len()];
        for turn in number..number + WAYS.len() {
            let way = turn % WAYS.len();
            round[way] = stretch(&mut rig, args, way, secs)?;
        }
        tracing::info!("round {} of {}: {:.1} frames/s with nothing exported", number + 1, args.rounds, round[0].fps);
        rounds.push(round);
    }
    let (latency, lost) = ring_latency(&mut rig, secs)?;
    let ways: Vec<Value> = (0..WAYS.len())
        .map(|way| {
            let over = |figure: &dyn Fn(&[Interval; WAYS.len()]) -> f64| median(rounds.iter().map(figure).collect());
            json!({
                "way": WAYS[way].0, "fps": over(&|r| r[way].fps), "of_nothing": over(&|r| r[way].fps / r[0].fps),
                "cpu_of_nothing": over(&|r| r[way].cpu_ms / r[0].cpu_ms),
                "dropped_rows": rounds.iter().map(|r| r[way].dropped_rows).sum::<u64>(),
            })
        })
        .collect();
    let json = json!({
        "ways": ways,
        "ring": { "p50_ms": latency.percentile_ms(0.5), "p99_ms": latency.percentile_ms(0.99), "lost": lost },
        "rounds": rounds,
        "encoder": rig.encoder(),
    });
    Ok(Output { text: text(&json)?, json, as_json: args.common.json })
}

/// Measures one export for `secs`, with a reader if it has one.
fn stretch(rig: &mut BenchHarness, args: &cli::BenchExportsArgs, way: usize, secs: Duration) -> Result<Interval> {
    let (name, sets) = WAYS[way];
    let (ring, socket) = (rig.path("ring"), rig.path("socket"));
    let mut sets: Vec<String> = args.common.set.iter().cloned().chain(sets.iter().map(|&set| set.into())).collect();
    match name {
        "ring" => sets.push(format!("stream.ring={}", ring.display())),
        "socket" => sets.push(format!("stream.socket=unix:{}", socket.display())),
        _ => {}
    }
    let config: Config = load(args.common.config.as_deref(), &sets)?;
    let outlets = LiveSinks::open(&config, None)?;
    let exporter = rig.exporter(&config, outlets)?;
    std::thread::scope(|scope| {
        let reader = match name {
            "ring" => {
                let reader = shm_ring::RingReader::open(&ring)?;
                Some(scope.spawn(move || read_ring(reader)))
            }
            "socket" => {
                let stream =
                    UnixStream::connect(&socket).map_err(|e| Error::io("cannot read the socket", &socket, e))?;
                Some(scope.spawn(move || read_socket(stream)))
            }
            _ => None,
        };
        let stretch = rig.embed_into(secs, exporter);
        let read = reader.map(|reader| reader.join().unwrap_or_default());
        let stretch = stretch?;
        if read == Some(0) {
            return Err(Error::runtime(format!("the reader of the {name} got nothing")));
        }
        Ok(stretch)
    })
}

/// Counts messages until the writer ends.
fn read_ring(mut reader: shm_ring::RingReader) -> u64 {
    let mut count = 0;
    loop {
        match reader.read() {
            shm_ring::RingRead::Message(..) => count += 1,
            shm_ring::RingRead::Nothing => std::thread::sleep(POLL),
            shm_ring::RingRead::Closed => return count,
        }
    }
}

/// Counts bytes until the writer ends.
fn read_socket(mut stream: UnixStream) -> u64 {
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        bytes += count as u64;
    }
    bytes
}

/// Latency from the writer's call to the reader's copy, next to a busy pipeline, and the number of lost messages.
fn ring_latency(rig: &mut BenchHarness, secs: Duration) -> Result<(LatencyHistogram, u64)> {
    let path: PathBuf = rig.path("timed");
    let begun = Instant::now();
    let mut writer = shm_ring::RingWriter::create(&path, RING_BYTES + 64, 256)?;
    let reader = shm_ring::RingReader::open(&path)?;
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || timed(reader, begun));
        let writing = scope.spawn(|| {
            let mut message = vec![0; RING_BYTES];
            while !end.load(Ordering::Relaxed) {
                message[..8].copy_from_slice(&(begun.elapsed().as_nanos() as u64).to_le_bytes());
                writer.push(&message);
                std::thread::sleep(RING_PERIOD);
            }
            drop(writer);
        });
        let stretch = rig.embed_into(secs, None);
        end.store(true, Ordering::Relaxed);
        let (written, read) = (writing.join(), reading.join());
        stretch?;
        match (written, read) {
            (Ok(()), Ok(read)) => Ok(read),
            _ => Err(Error::runtime("a thread of the ring's bench panicked")),
        }
    })
}

fn timed(mut reader: shm_ring::RingReader, begun: Instant) -> (LatencyHistogram, u64) {
    let (mut latency, mut lost) = (LatencyHistogram::default(), 0);
    loop {
        match reader.read() {
            shm_ring::RingRead::Message(message, before) => {
                lost += before;
                let since = message.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                latency.record(begun.elapsed().saturating_sub(Duration::from_nanos(since)));
            }
            shm_ring::RingRead::Nothing => std::thread::sleep(POLL),
            shm_ring::RingRead::Closed => return (latency, lost),
        }
    }
}

/// Formats the figures as a small table.
fn text(figures: &Value) -> Result<String> {
    let met = |met: bool| if met { "met" } else { "missed" };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let failed = |e| Error::runtime("the table of the bench cannot be written").with_source(e);
    let mut out =
        String::from("               frames/s   of nothing   target           processor time   dropped rows\n");
    for (at, way) in figures["ways"].as_array().into_iter().flatten().enumerate() {
        let (name, ratio) = (way["way"].as_str().unwrap_or_default(), number(&way["of_nothing"]));
        let target = if at == 0 { String::new() } else { format!(">= {LEAST:.2} {}", met(ratio >= LEAST)) };
        writeln!(
            out,
            "{name:<13} {:9.1}   {ratio:10.3}   {target:<14}   {:14.3}   {:12}",
            number(&way["fps"]),
            number(&way["cpu_of_nothing"]),
            way["dropped_rows"]
        )
        .map_err(failed)?;
    }
    let (p50, p99) = (number(&figures["ring"]["p50_ms"]), number(&figures["ring"]["p99_ms"]));
    write!(
        out,
        "ring latency   p50 {p50:.2} ms, p99 {p99:.2} ms; target p99 < {MOST_RING_MS:.0} ms {}; {} lost",
        met(p99 < MOST_RING_MS),
        figures["ring"]["lost"]
    )
    .map_err(failed)?;
    Ok(out)
}
