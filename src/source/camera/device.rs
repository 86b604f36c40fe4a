//! Checks the device file of a camera: does it exist, is access allowed, does another program use it, and what to do if
//! so. Starts no capture.
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::discovery;
use crate::error::{Error, Result};

/// Checks the device file `device` (`/dev/videoN`, or a link to it).
/// # Errors
/// A runtime error: nothing there, not a camera, no permission, or in use; the message says what to do.
pub fn check(device: &Path) -> Result<()> {
    open(device).map(drop)
}

/// Opens the device file for capture.
/// # Errors
/// Those of [`check`].
pub(super) fn open(device: &Path) -> Result<File> {
    let shown = device.display();
    let metadata = match fs::metadata(device) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::runtime(format!(
                "no camera at {shown}; {}. Plug it in and look with `v4l2-ctl --list-devices`; a container needs \
                 `--device {shown}`",
                others()
            ))
            .with_source(error));
        }
        Err(error) => return Err(Error::io("cannot look at the camera", device, error)),
    };
    if !metadata.file_type().is_char_device() {
        return Err(Error::runtime(format!("{shown} is not a camera device; {}", others())));
    }
    let file = match discovery::open(device) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(denied(device, metadata.gid()).with_source(error));
        }
        Err(error) if error.kind() == ErrorKind::ResourceBusy => return Err(busy(device).with_source(error)),
        Err(error) => return Err(Error::io("cannot open the camera", device, error)),
    };
    match discovery::identify(device, &file) {
        Ok(Some(_)) => Ok(file),
        Ok(None) if discovery::several_planes(&file) => Err(Error::runtime(format!(
            "{shown} gives frames in several planes, which are not read here; use its vendor's GStreamer source in a gst: \
             pipeline, on a Jetson csi://0"
        ))),
        Ok(None) => Err(Error::runtime(format!(
            "{shown} captures no video (cameras have further devices, for metadata and the like); {}",
            others()
        ))),
        Err(error) => Err(Error::runtime(format!("{shown} is not a V4L2 camera (a device /dev/videoN); {}", others()))
            .with_source(error)),
    }
}

fn denied(device: &Path, group: u32) -> Error {
    let name = File::open("/etc/group").ok().and_then(|file| std::io::read_to_string(file).ok());
    let name = name.and_then(|text| group_name(&text, group)).unwrap_or_else(|| format!("number {group}"));
    Error::runtime(format!(
        "no permission to open the camera {}; it belongs to the group {name}. Join it with `sudo usermod -aG {name} \
         $USER`, then log in again",
        device.display()
    ))
}

/// The error for a camera in use; names the other program if `/proc` shows it.
pub(super) fn busy(device: &Path) -> Error {
    let holders = holders(device, Path::new("/proc"));
    let device = device.display();
    let who = if holders.is_empty() {
        format!("another program (of another user; `sudo fuser -v {device}` names it)")
    } else {
        holders.join(", ")
    };
    Error::runtime(format!("the camera {device} is in use by {who}; end that, or name another camera"))
}

/// `name (process 123)` for every other process that has `device` open, as far as this user may see.
fn holders(device: &Path, proc: &Path) -> Vec<String> {
    let Ok(real) = fs::canonicalize(device) else { return Vec::new() };
    let own = std::process::id();
    let numbers = fs::read_dir(proc).into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |number: &u32| {
        let open = fs::read_dir(proc.join(number.to_string()).join("fd")).into_iter().flatten().flatten();
        *number != own && open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file == real)
    };
    let mut found: Vec<u32> = numbers.filter(holds).collect();
    found.sort_unstable();
    let told = |number: &u32| {
        let name = fs::read_to_string(proc.join(number.to_string()).join("comm")).unwrap_or_default();
        format!("{} (process {number})", if name.trim().is_empty() { "a program" } else { name.trim() })
    };
    found.iter().map(told).collect()
}

/// The name of group `number` in text in the format of /etc/group.
fn group_name(text: &str, number: u32) -> Option<String> {
    let line = text.lines().find(|line| line.split(':').nth(2).and_then(|n| n.parse().ok()) == Some(number))?;
    line.split(':').next().map(str::to_string)
}

/// A list of the available cameras, for messages.
fn others() -> String {
    let mut names: Vec<String> = fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|item| item.file_name().into_string().ok())
        .filter(|name| name.strip_prefix("video").is_some_and(|n| n.parse::<u32>().is_ok()))
        .map(|name| format!("/dev/{name}"))
        .collect();
    names.sort_unstable();
    if names.is_empty() { "there is no /dev/video* at all".into() } else { format!("found: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_no_camera_is_refused_in_words() {
        let refused = |path: &str| check(Path::new(path)).unwrap_err().chain();
        let missing = refused("/dev/video9999");
        assert!(missing.contains("no camera at /dev/video9999") && missing.contains("--list-devices"), "{missing}");
        assert!(refused("/dev/null").contains("not a V4L2 camera"));
        assert!(refused("/etc").contains("not a camera device"));
    }

    #[test]
    fn a_denied_camera_names_its_group() {
        let text = "root:x:0:\nvideo:x:44:someone\n";
        assert_eq!(group_name(text, 44).as_deref(), Some("video"));
        assert_eq!(group_name(text, 45), None);
        let message = denied(Path::new("/dev/video0"), 0).chain();
        assert!(message.contains("usermod -aG root") && message.contains("/dev/video0"), "{message}");
        assert!(denied(Path::new("/dev/video0"), 4_000_000_000).chain().contains("number 4000000000"));
        assert!(busy(Path::new("/dev/video0")).chain().contains("fuser -v /dev/video0"));
    }

    #[test]
    fn the_holder_of_a_device_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("video0");
        fs::write(&device, "").unwrap();
        let real = fs::canonicalize(&device).unwrap();
        let proc = folder.path().join("proc");
        for (number, open) in [("4000001", true), ("4000002", false), ("self", true)] {
            fs::create_dir_all(proc.join(number).join("fd")).unwrap();
            fs::write(proc.join(number).join("comm"), "cheese\n").unwrap();
            if open {
                std::os::unix::fs::symlink(&real, proc.join(number).join("fd/3")).unwrap();
            }
        }
        assert_eq!(holders(&device, &proc), ["cheese (process 4000001)"]);
    }
}
