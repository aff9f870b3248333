//! Kernels that know less of pidfds than this one may.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child;

/// Makes a program that executes its arguments as on a kernel before 6.9. `None` without
/// a C compiler.
pub(crate) fn launcher(dir: &Path) -> Option<PathBuf> {
    if !child::has("cc") {
        return None;
    }
    let (source, program) = (dir.join("old_kernel.c"), dir.join("old-kernel"));
    if !program.exists() {
        fs::write(&source, include_str!("old_kernel.c")).unwrap();
        let compiled = Command::new("cc")
            .arg("-o")
            .args([&program, &source])
            .status();
        assert!(compiled.unwrap().success());
    }
    Some(program)
}
