//! The package around a model: its manifest and its weight file.

use super::{Artifact, Findings, literals::each_blob, view::tensor};
use crate::weights::{ALIGNMENT, WEIGHT_FILE};
use std::collections::BTreeSet;

pub(super) fn manifest(a: &Artifact<'_>, out: &mut Findings) {
    let Some(manifest) = a.manifest else { return };
    if let Err(e) = manifest.root() {
        out.add("Manifest.json", e.to_string());
    }
    let mut seen = BTreeSet::new();
    for item in manifest.items.values() {
        if !seen.insert((&item.author, &item.name)) {
            out.add("Manifest.json", format!("two items `{}` of `{}`", item.name, item.author));
        }
    }
}

pub(super) fn blob_file(a: &Artifact<'_>, out: &mut Findings) {
    each_blob(a, &mut |place, _, blob| {
        if blob.file_name != WEIGHT_FILE {
            out.add(place, format!("`{}`", blob.file_name));
        }
    });
}

pub(super) fn blob_metadata(a: &Artifact<'_>, out: &mut Findings) {
    each_blob(a, &mut |place, _, blob| match a.weights.entry(&blob.file_name, blob.offset) {
        Err(e) => out.add(place, e.to_string()),
        Ok(e) if !e.offset.is_multiple_of(ALIGNMENT) || e.data_offset != e.offset + ALIGNMENT => {
            out.add(place, format!("metadata at {}, data at {}", e.offset, e.data_offset));
        }
        Ok(_) => {}
    });
}

pub(super) fn blob_type(a: &Artifact<'_>, out: &mut Findings) {
    each_blob(a, &mut |place, value, blob| {
        let Ok(entry) = a.weights.entry(&blob.file_name, blob.offset) else { return };
        let want = value.r#type.as_ref().and_then(tensor).and_then(|t| Some((t.dtype?, t.count()?)));
        if !want.is_some_and(|(dtype, count)| entry.fits(dtype, count)) {
            let want = super::view::show(value.r#type.as_ref());
            out.add(place, format!("{} bytes of {} for {want}", entry.len, entry.dtype));
        }
    });
}
