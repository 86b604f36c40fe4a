use super::*;

fn offer(pixels: Pixels, width: u32, height: u32, frames: u32) -> SupportedMode {
    SupportedMode { pixels, width, height, rate: Some(Rate { frames, secs: 1 }) }
}

fn offers() -> SupportedModes {
    let usable = vec![
        offer(Pixels::Grey, 640, 480, 30),
        offer(Pixels::Yuyv, 1280, 720, 10),
        offer(Pixels::Mjpeg, 1280, 720, 30),
        offer(Pixels::Yuyv, 640, 480, 30),
        offer(Pixels::Mjpeg, 640, 480, 30),
        offer(Pixels::Yuyv, 320, 180, 1),
    ];
    SupportedModes { usable, others: vec!["HEVC".into()] }
}

fn wish(width: u32, height: u32, rate: f64, nearest: bool) -> RequestedMode {
    RequestedMode { width, height, rate, pixels: None, nearest }
}

fn choice(offers: &SupportedModes, wish: &RequestedMode) -> Result<SupportedMode> {
    offers.choose(Path::new("/dev/video7"), wish)
}

#[test]
fn the_wish_is_taken_exactly_unless_the_nearest_is_asked_for() {
    let all = offers();
    let exact = |w, h, rate| choice(&all, &wish(w, h, rate, false));
    assert_eq!(exact(640, 480, 30.0).unwrap(), offer(Pixels::Yuyv, 640, 480, 30), "cheapest to decode");
    assert_eq!(exact(1280, 720, 30.0).unwrap(), offer(Pixels::Mjpeg, 1280, 720, 30));
    let error = exact(1280, 720, 5.0).unwrap_err().chain();
    for part in ["/dev/video7 does not offer 1280x720 at 5", "YUYV 1280x720 at 10", "camera_nearest = true"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let near = |w, h, rate| choice(&all, &wish(w, h, rate, true)).unwrap();
    assert_eq!(near(1280, 720, 5.0), offer(Pixels::Yuyv, 1280, 720, 10));
    assert_eq!(near(16, 16, 30.0), offer(Pixels::Yuyv, 320, 180, 1), "the size goes before the rate");
    assert_eq!(near(4096, 4096, 30.0), offer(Pixels::Mjpeg, 1280, 720, 30));
    let grey = SupportedModes { usable: vec![all.usable[0]], others: Vec::new() };
    assert_eq!(choice(&grey, &wish(640, 480, 30.0, false)).unwrap(), all.usable[0], "where there is nothing else");
    let only = RequestedMode { pixels: Some(Pixels::Mjpeg), ..wish(640, 480, 30.0, false) };
    assert_eq!(choice(&all, &only).unwrap(), offer(Pixels::Mjpeg, 640, 480, 30));
    let absent = RequestedMode { pixels: Some(Pixels::Nv12), ..only };
    assert!(choice(&all, &absent).unwrap_err().chain().contains("does not offer NV12"));
}

#[test]
fn a_sensor_with_bayer_frames_only_is_sent_elsewhere() {
    for fourcc in ["BA81", "GBRG", "RGGB", "RG10", "pBAA", "pgCC", "GB12", "BYR2"] {
        let raw = SupportedModes { usable: Vec::new(), others: vec![fourcc.into()] };
        let error = choice(&raw, &wish(640, 480, 30.0, true)).unwrap_err().chain();
        assert!(error.contains("raw Bayer frames only") && error.contains("use csi://0"), "{fourcc}: {error}");
    }
    // They do not matter when there are also usable formats.
    let mixed = SupportedModes { others: vec!["RG10".into()], ..offers() };
    assert!(choice(&mixed, &wish(640, 480, 30.0, false)).is_ok());
    let strange = SupportedModes { usable: Vec::new(), others: vec!["HEVC".into()] };
    assert!(choice(&strange, &wish(640, 480, 30.0, false)).unwrap_err().chain().contains("found: HEVC"));
    assert!(!["BGR4", "GREY", "RGB3", "RGBP", "avc1"].into_iter().any(bayer));
}

#[test]
fn rates_of_television_and_unknown_ones_count_as_what_is_meant() {
    let television =
        SupportedMode { rate: Some(Rate { frames: 30_000, secs: 1001 }), ..offer(Pixels::Yuyv, 640, 480, 1) };
    let of_its_own = SupportedMode { rate: None, ..television };
    for found in [television, of_its_own] {
        let offers = SupportedModes { usable: vec![found], others: Vec::new() };
        assert_eq!(choice(&offers, &wish(640, 480, 30.0, false)).unwrap(), found);
    }
    assert!(television.to_string().contains("YUYV 640x480 at 29.97"), "{television}");
}

#[test]
fn cameras_without_a_usable_format_say_what_to_do() {
    let told = |others: &[&str]| {
        let offers = SupportedModes { usable: Vec::new(), others: others.iter().map(|s| (*s).to_owned()).collect() };
        choice(&offers, &wish(640, 480, 30.0, true)).unwrap_err().chain()
    };
    for sensor in ["RG10", "BA81", "pBAA", "GB12"] {
        let text = told(&[sensor]);
        assert!(text.contains("use csi://0") && text.contains(sensor), "{text}");
    }
    assert!(told(&["HEVC"]).contains("found: HEVC"));
    assert!(told(&[]).contains("is another program feeding it?"));
}

#[test]
fn ranges_give_the_value_nearest_to_the_wish() {
    assert_eq!(within(640, 16, 1920, 8), 640);
    assert_eq!(within(645, 16, 1920, 8), 648);
    assert_eq!(within(4000, 16, 1921, 8), 1920);
    assert_eq!(within(1, 16, 1920, 0), 16);
    assert_eq!(within(7, 16, 3, 0), 16, "a driver that lies");
}
