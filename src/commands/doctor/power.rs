//! Detects a Jetson board and its system, which determine the compatible ONNX Runtime.
use std::fs;
use std::path::Path;

use crate::commands::diagnostics::Diagnostics;

/// Package whose version is that of JetPack.
const PACKAGE: &str = "nvidia-jetpack";

/// Reports L4T and JetPack on a Jetson board, and nothing on other machines. `root` is `/`.
pub(super) fn jetson(all: &mut Diagnostics, root: &Path) {
    let Ok(release) = fs::read_to_string(root.join("etc/nv_tegra_release")) else { return };
    let l4t = l4t(&release).unwrap_or_else(|| release.lines().next().unwrap_or_default().trim().to_owned());
    let board = fs::read_to_string(root.join("proc/device-tree/model")).unwrap_or_default();
    let board = board.trim_matches(['\0', '\n']);
    let packages = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap_or_default();
    let (jetpack, major) = match version(&packages, PACKAGE) {
        Some(version) => (format!("JetPack {version}"), version.split('.').next().and_then(|n| n.parse::<u32>().ok())),
        None => (format!("JetPack not known (no package {PACKAGE})"), None),
    };
    let name = if board.is_empty() { "Jetson" } else { board };
    let found = format!("{name}, L4T {l4t}, {jetpack}");
    match major {
        Some(..=5) => all.warn(
            "board",
            found,
            "no GPU build of ONNX Runtime 1.23 or later fits this system: use the CPU, or update to JetPack 6 \
             (docs/jetson.md)",
        ),
        Some(_) => all.ok("board", format!("{found}; docs/jetson.md says which ONNX Runtime fits")),
        None => all.warn("board", found, format!("apt install {PACKAGE} for CUDA, cuDNN and TensorRT")),
    }
}

/// `# R36 (release), REVISION: 4.3, GCID: ...` as `36.4.3`.
fn l4t(release: &str) -> Option<String> {
    let (_, rest) = release.split_once("# R")?;
    let (major, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once("REVISION: ")?;
    Some(format!("{major}.{}", rest.split(',').next()?.trim()))
}

/// Version of an installed package in the text of dpkg's status file.
fn version(status: &str, package: &str) -> Option<String> {
    let field = |part: &str, key: &str| {
        part.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(|value| value.trim().to_owned())
    };
    let parts = status.split("\n\n").filter(|part| field(part, "Package").as_deref() == Some(package));
    parts
        .filter(|part| field(part, "Status").is_some_and(|s| s.ends_with(" installed")))
        .find_map(|p| field(p, "Version"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn told(release: Option<&str>, status: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "proc/device-tree", "var/lib/dpkg"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("proc/device-tree/model"), "NVIDIA Jetson Orin Nano\0").unwrap();
        fs::write(root.path().join("var/lib/dpkg/status"), status).unwrap();
        if let Some(release) = release {
            fs::write(root.path().join("etc/nv_tegra_release"), release).unwrap();
        }
        let mut all = Diagnostics::default();
        jetson(&mut all, root.path());
        all.done(false, None).output.text
    }

    #[test]
    fn a_board_tells_its_system() {
        const RELEASE: &str = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n";
        let status = |version: &str, state: &str| {
            format!(
                "Package: nvidia-jetpack-dev\nStatus: install ok installed\nVersion: 9\n\nPackage: nvidia-jetpack\n\
                 Status: install ok {state}\nVersion: {version}\n\nPackage: other\nVersion: 1\n"
            )
        };
        assert_eq!(told(None, ""), "");
        let text = told(Some(RELEASE), &status("6.2+b77", "installed"));
        assert!(text.starts_with("ok    board: NVIDIA Jetson Orin Nano, L4T 36.4.3, JetPack 6.2+b77"), "{text}");
        let text = told(Some(RELEASE), &status("5.1.2", "installed"));
        assert!(text.starts_with("warn  board: ") && text.contains("update to JetPack 6"), "{text}");
        for none in [String::new(), status("6.2", "config-files")] {
            let text = told(Some(RELEASE), &none);
            assert!(text.contains("JetPack not known") && text.contains("apt install nvidia-jetpack"), "{text}");
        }
        assert!(told(Some("strange\n"), "").contains("L4T strange"));
    }
}
