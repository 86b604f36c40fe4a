use super::*;
use crate::config::Dtype;

fn problems(overrides: &[&str]) -> String {
    let list: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
    load(None, &list).expect_err("must be refused").chain()
}

#[test]
fn defaults_are_allowed_and_every_number_has_a_range() {
    assert_eq!(load(None, &[]).expect("defaults"), Config::default());
    let schema = schema().expect("schema");
    every_number("", &schema, &mut |key| {
        assert!(ranges().any(|(k, _, _)| *k == key), "{key} has no range");
    });
    for (key, _, _) in ranges() {
        assert!(lookup(&schema, key).is_some(), "{key} is no key");
    }
}

fn every_number(prefix: &str, table: &Table, found: &mut dyn FnMut(&str)) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => every_number(&key, inner, found),
            Value::Float(_) | Value::Integer(_) => found(&key),
            _ => {}
        }
    }
}

fn same_keys(prefix: &str, given: &Table, schema: &Table) {
    let keys = |t: &Table| t.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(given), keys(schema), "[{prefix}]");
    for (key, inner) in schema.iter().filter_map(|(key, value)| Some((key, value.as_table()?))) {
        same_keys(&format!("{prefix}.{key}"), given[key].as_table().expect("table"), inner);
    }
}

#[test]
fn the_commented_configuration_names_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/default.toml");
    assert_eq!(load(Some(&path), &[]).expect("loads"), Config::default());
    same_keys("", &read(&path).expect("reads"), &schema().expect("schema"));
}

#[test]
fn every_example_is_taken_and_changes_something() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut seen = Vec::new();
    for file in std::fs::read_dir(folder).expect("configs") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|end| end != "toml") {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let config = load(Some(&path), &[]).expect("loads");
        assert_eq!(config == Config::default(), name == "default", "{name}");
        seen.push(name);
    }
    seen.sort();
    assert_eq!(seen, ["default", "desktop", "jetson-orin", "replay", "rtsp", "usb-camera"]);
}

#[test]
fn every_mistake_is_reported_with_its_key_and_range() {
    let text = problems(&[
        "learn.temprature=0.1",
        "learn.cpu_share=7",
        "learn.optimizer.learning_rate=nan",
        "head.dim=\"many\"",
        "head.hidden=-3",
        "encoder.providers=[\"cpu\",\"npu\"]",
        "encoder.taps=[\"x:gem\", \"y\"]",
        "sauce.x=1",
        "preprocess.exposure=1.5",
        "head.candidates=[\"slow dim=x\"]",
    ]);
    assert!(problems(&["head.candidates=[1]"]).contains("must be a list of texts"));
    for part in [
        "11 mistakes",
        "learn.temprature: unknown key; did you mean objective.temperature?",
        "learn.cpu_share = 7: must be from 0.01 to 1",
        "learn.optimizer.learning_rate = NaN: must be from 0 to 10",
        "head.dim = \"many\": must be integer, found string",
        "head.hidden = -3: must not be negative",
        "encoder.providers has \"npu\": must be one of tensorrt, cuda, openvino, xnnpack, acl, cpu",
        "encoder.taps has \"x:gem\": \"gem\": gem takes a power from 1 to 10",
        "encoder.taps has \"y\": write TENSOR:POOLING",
        "sauce: unknown key",
        "preprocess.exposure = \"1.5\": must be \"card\", \"off\" or a mean brightness from 0.05 to 0.95",
        "head.candidates has \"slow dim=x\": dim=x: must be from 1 to 4096",
    ] {
        assert!(text.contains(part), "missing {part:?} in\n{text}");
    }
}

#[test]
fn wrong_options_of_providers_are_refused_with_their_key_and_range() {
    for (set, says) in [
        ("encoder.tensorrt.precision=fp8", "encoder.tensorrt.precision has \"fp8\": must be one of fp32, fp16, int8"),
        ("encoder.tensorrt.builder_level=6", "encoder.tensorrt.builder_level = 6: must be from 0 to 5"),
        ("encoder.tensorrt.workspace_megabytes=0", "workspace_megabytes = 0: must be from 1 to 65536"),
        ("encoder.tensorrt.opt_batch=4", "opt_batch = 4, max_batch = 1: each must be at least the one before"),
        ("encoder.tensorrt.dla=true", "encoder.tensorrt.dla = true: the accelerator has no 32-bit floats"),
        ("encoder.tensorrt.engine_cash=true", "encoder.tensorrt.engine_cash: unknown key; did you mean engine_cache?"),
        ("encoder.cuda.arena_extend=fast", "must be one of same-as-requested, next-power-of-two"),
        ("encoder.cuda.conv_search=all", "must be one of heuristic, default, exhaustive"),
        ("encoder.cuda.tf32=1", "encoder.cuda.tf32 = 1: must be boolean, found integer"),
        ("encoder.cuda.device=-1", "encoder.cuda.device = -1: must not be negative"),
        ("encoder.openvino.device=\"\"", "encoder.openvino.device = \"\": must name a device"),
        ("encoder.parity.min_cosine=1.5", "encoder.parity.min_cosine = 1.5: must be from 0 to 1"),
        ("encoder.providers=[\"cuda\",\"cuda\"]", "encoder.providers has \"cuda\" twice"),
        ("encoder.cuda=3", "encoder.cuda = 3: must be table, found integer"),
    ] {
        let text = problems(&[set]);
        assert!(text.contains(says), "expected {says:?}, got\n{text}");
    }
    let both = ["encoder.tensorrt.opt_batch=4", "encoder.tensorrt.max_batch=8"].map(str::to_owned);
    assert_eq!(load(None, &both).expect("taken").encoder.tensorrt.max_batch, 8);
}

#[test]
fn taps_are_texts() {
    assert!(problems(&["encoder.taps=[3]"]).contains("encoder.taps: must be a list of texts"));
    assert_eq!(load(None, &["encoder.taps=[\"output\"]".into()]).expect("taken").encoder.taps, ["output"]);
}

#[test]
fn ranges_are_checked_together() {
    assert!(problems(&["learn.cpc.first=6"]).contains("must not be above learn.cpc.steps = 5"));
    assert!(problems(&["learn.sampling.gap_min_secs=2.0"]).contains("must not be above learn.sampling.gap_max_secs"));
    assert!(problems(&["learn.sampling.still_frames=15"]).contains("0 (off) or at least 16"));
}

#[test]
fn a_bare_word_and_an_integer_for_a_float_are_taken() {
    let config = load(None, &["export.dtype=f16".into(), "learn.cpu_share=1".into()]).expect("taken");
    assert_eq!((config.export.dtype, config.learn.cpu_share), (Dtype::F16, 1.0));
}
