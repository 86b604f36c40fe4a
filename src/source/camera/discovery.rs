//! Finds the device of a camera, also after it came back under another number.
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::v4l2_sys::{self, IoctlDirection, ask};
use crate::error::{Error, Result};
use crate::source::uri::CameraSelector;

/// What identifies a video device to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The camera's name.
    pub(super) card: String,
    /// Where it is plugged in.
    pub(super) bus: String,
    /// Number of the device within the camera: cameras have several, for other streams and for metadata.
    pub(super) index: u32,
}

/// A video device that can capture frames.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

/// Opens a device without blocking; child processes do not inherit it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Identifies the device `file`, opened at `path`; `None` if it does not capture video.
pub(super) fn identify(path: &Path, file: &File) -> io::Result<Option<Identity>> {
    let mut told = v4l2_sys::Capability::default();
    ask(file, IoctlDirection::Query, &mut told)?;
    let named = told.capabilities & v4l2_sys::CAP_DEVICE_CAPS != 0;
    let can = if named { told.device_caps } else { told.capabilities };
    if can & v4l2_sys::CAP_VIDEO_CAPTURE == 0 || can & v4l2_sys::CAP_STREAMING == 0 {
        return Ok(None);
    }
    let number = fs::canonicalize(path).ok().and_then(|real| real.file_name().map(Path::new).map(Path::to_path_buf));
    let index = number.and_then(|name| fs::read_to_string(Path::new(CLASS).join(name).join("index")).ok());
    let index = index.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(Some(Identity { card: v4l2_sys::text(&told.card), bus: v4l2_sys::text(&told.bus), index }))
}

/// The device only delivers multi-planar frames, which are not supported.
pub(super) fn several_planes(file: &File) -> bool {
    let mut told = v4l2_sys::Capability::default();
    ask(file, IoctlDirection::Query, &mut told).is_ok() && told.device_caps & v4l2_sys::CAP_VIDEO_CAPTURE_MPLANE != 0
}

/// The kernel's list of video devices.
const CLASS: &str = "/sys/class/video4linux";

/// All capture devices that may be opened, by number.
pub(super) fn nodes() -> Vec<Node> {
    let entries = fs::read_dir(CLASS).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    let node = |number: &u32| {
        let path = PathBuf::from(format!("/dev/video{number}"));
        let identity = identify(&path, &open(&path).ok()?).ok()??;
        Some(Node { path, identity })
    };
    numbers.iter().filter_map(node).collect()
}

/// The device that the user selected.
/// # Errors
/// A runtime error: no camera has that name or location, or several have that name.
pub(super) fn wanted(asked: &CameraSelector, nodes: impl FnOnce() -> Vec<Node>) -> Result<PathBuf> {
    let matches = |identity: &Identity| match asked {
        CameraSelector::Name(name) => identity.card == *name,
        CameraSelector::Bus(bus) => identity.bus == *bus,
        CameraSelector::Path(_) => false,
    };
    if let CameraSelector::Path(path) = asked {
        return Ok(path.clone());
    }
    let nodes = nodes();
    let found: Vec<&Node> = nodes.iter().filter(|node| matches(&node.identity)).collect();
    match found.first() {
        // Of the devices of one camera, the first is the one that everybody uses.
        Some(first) if found.iter().all(|node| node.identity.bus == first.identity.bus) => Ok(first.path.clone()),
        Some(_) => Err(Error::runtime(format!(
            "{} cameras are called by {asked}; name one by its place: {}",
            found.len(),
            list(&nodes)
        ))),
        None => Err(Error::runtime(format!("no camera is {asked}; {}", list(&nodes)))),
    }
}

/// A list of the available cameras, for messages.
fn list(nodes: &[Node]) -> String {
    let told = |node: &Node| {
        let Node { path, identity: Identity { card, bus, .. } } = node;
        format!("{} (name {card}, bus {bus})", path.display())
    };
    if nodes.is_empty() {
        return "there is none that this user may open".into();
    }
    format!("found: {}", nodes.iter().map(told).collect::<Vec<_>>().join(", "))
}

/// Where the camera `known` is now: at the same location, whatever its number; otherwise the only camera with that name
/// (plugged in elsewhere).
pub(super) fn again(known: &Identity, nodes: &[Node]) -> Option<PathBuf> {
    if let Some(node) = nodes.iter().find(|node| node.identity == *known) {
        return Some(node.path.clone());
    }
    let mut alike = nodes.iter().filter(|n| n.identity.card == known.card && n.identity.index == known.index);
    match (alike.next(), alike.next()) {
        (Some(node), None) => Some(node.path.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn node(path: &str, card: &str, bus: &str, index: u32) -> Node {
        Node { path: path.into(), identity: Identity { card: card.into(), bus: bus.into(), index } }
    }

    fn some() -> Vec<Node> {
        vec![
            node("/dev/video2", "Door", "usb-1", 0),
            node("/dev/video3", "Door", "usb-1", 2),
            node("/dev/video4", "Yard", "usb-2", 0),
            node("/dev/video6", "Yard", "usb-3", 0),
        ]
    }

    #[test]
    fn cameras_are_found_by_name_and_bus() {
        let path = |asked: CameraSelector| wanted(&asked, some);
        assert_eq!(path(CameraSelector::Path("/dev/v4l/by-id/x".into())).unwrap(), Path::new("/dev/v4l/by-id/x"));
        assert_eq!(
            path(CameraSelector::Name("Door".into())).unwrap(),
            Path::new("/dev/video2"),
            "two devices of one camera"
        );
        assert_eq!(path(CameraSelector::Bus("usb-3".into())).unwrap(), Path::new("/dev/video6"));
        let twice = path(CameraSelector::Name("Yard".into())).unwrap_err().chain();
        assert!(twice.contains("2 cameras") && twice.contains("bus usb-3"), "{twice}");
        let none = path(CameraSelector::Name("Roof".into())).unwrap_err().chain();
        assert!(none.contains("no camera is name=Roof") && none.contains("/dev/video4 (name Yard"), "{none}");
    }

    #[test]
    fn a_camera_is_found_again_under_another_number_or_in_another_place() {
        let known = |card: &str, bus: &str, index| Identity { card: card.into(), bus: bus.into(), index };
        assert_eq!(again(&known("Yard", "usb-3", 0), &some()).unwrap(), Path::new("/dev/video6"));
        assert_eq!(again(&known("Door", "usb-9", 0), &some()).unwrap(), Path::new("/dev/video2"));
        assert_eq!(again(&known("Door", "usb-9", 2), &some()).unwrap(), Path::new("/dev/video3"));
        assert_eq!(again(&known("Yard", "usb-9", 0), &some()), None, "which of the two?");
        assert_eq!(again(&known("Roof", "usb-1", 0), &some()), None, "another camera in its place");
    }
}
