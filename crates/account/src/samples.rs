//! What tests begin with.

use std::path::Path;
use std::sync::Arc;

use postrider_base::SimDisk;
use postrider_store::{Options, Store};
use tempfile::TempDir;

/// A store on this disk, and the directory of its view, which has to live as long.
pub(crate) fn store(disk: &SimDisk) -> (Store, TempDir) {
    let index = tempfile::tempdir().unwrap();
    let options = Options { index_dir: Some(index.path().to_owned()), ..Options::default() };
    (Store::open_with(Arc::new(disk.clone()), Path::new("/store"), options).unwrap(), index)
}
