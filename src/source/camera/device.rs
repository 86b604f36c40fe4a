//! The device file of a camera: is it there, may we, and what to do if not. Opens no stream.
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::error::{Error, Result};

/// Number N of the camera that `device` (`/dev/videoN`, or a link to it) names, after a look at the device file.
/// # Errors
/// Work: nothing there, no camera, no permission, in use; the message says what to do.
pub fn check(device: &Path) -> Result<u32> {
    let shown = device.display();
    let metadata = match fs::metadata(device) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::work(format!(
                "no camera at {shown}; {}. Plug it in and look with `v4l2-ctl --list-devices`; a container needs \
                 `--device {shown}`",
                others()
            ))
            .because(error));
        }
        Err(error) => return Err(Error::io("cannot look at the camera", device, error)),
    };
    if !metadata.file_type().is_char_device() {
        return Err(Error::work(format!("{shown} is not a camera device; {}", others())));
    }
    // By-id and by-path links are resolved, since the library below knows cameras by number only.
    let real = fs::canonicalize(device).map_err(|e| Error::io("cannot look at the camera", device, e))?;
    let number = real.file_name().and_then(|name| name.to_str()?.strip_prefix("video")?.parse().ok());
    let Some(number) = number else {
        return Err(Error::work(format!("{shown} is not a V4L2 camera (a device /dev/videoN); {}", others())));
    };
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(number),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(denied(device, metadata.gid()).because(error)),
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Err(busy(device).because(error)),
        Err(error) => Err(Error::io("cannot open the camera", device, error)),
    }
}

fn denied(device: &Path, group: u32) -> Error {
    let name = File::open("/etc/group").ok().and_then(|file| std::io::read_to_string(file).ok());
    let name = name.and_then(|text| group_name(&text, group)).unwrap_or_else(|| format!("number {group}"));
    Error::work(format!(
        "no permission to open the camera {}; it belongs to the group {name}. Join it with `sudo usermod -aG {name} \
         $USER`, then log in again",
        device.display()
    ))
}

/// The error for a camera that another program holds.
pub(super) fn busy(device: &Path) -> Error {
    let device = device.display();
    Error::work(format!(
        "the camera {device} is in use by another program; find it with `fuser -v {device}` and end it"
    ))
}

/// Name of group `number` in text like /etc/group.
fn group_name(text: &str, number: u32) -> Option<String> {
    let line = text.lines().find(|line| line.split(':').nth(2).and_then(|n| n.parse().ok()) == Some(number))?;
    line.split(':').next().map(str::to_string)
}

/// The cameras that are there, in words.
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
}
