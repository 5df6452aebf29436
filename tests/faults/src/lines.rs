//! The files of a recording: `about.json`, and one file of JSON lines for each kind of record.
//!
//! Invariants: what is read back is equal to what was written; a last line that was cut off with its writer is none.
//! Not here: what the records are (record.rs, api/record.rs).

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Whose clients a run had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    Store,
    Api,
}

#[derive(Serialize, Deserialize)]
struct About<T> {
    workload: Workload,
    #[serde(flatten)]
    rest: T,
}

/// Makes `dir` and says in it what the run is.
pub fn begin<T: Serialize>(dir: &Path, workload: Workload, about: &T) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let about = About { workload, rest: about };
    Ok(fs::write(dir.join("about.json"), serde_json::to_vec_pretty(&about)?)?)
}

pub fn about<T: DeserializeOwned>(dir: &Path) -> Result<(Workload, T)> {
    let text = fs::read(dir.join("about.json")).with_context(|| format!("no run in {}", dir.display()))?;
    let about: About<T> = serde_json::from_slice(&text)?;
    Ok((about.workload, about.rest))
}

/// Whose run `dir` holds.
pub fn workload(dir: &Path) -> Result<Workload> {
    Ok(about::<serde_json::Value>(dir)?.0)
}

/// A file of records that grows.
pub fn create(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(format!("{name}.jsonl"));
    File::create(&path).with_context(|| format!("cannot make {}", path.display()))
}

pub fn write<T: Serialize>(dir: &Path, name: &str, records: &[T]) -> Result<()> {
    let mut file = BufWriter::new(create(dir, name)?);
    for record in records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

pub fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Vec<T>> {
    let path = dir.join(format!("{name}.jsonl"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut records = Vec::new();
    // A harness that was killed may have left a part of a line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let record =
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        records.push(record);
    }
    Ok(records)
}
