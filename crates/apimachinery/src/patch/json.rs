//! RFC 6902, with the limits of the API server.

use json_patch::{PatchOperation, patch_unsafe};

use super::PatchError;
use crate::Value;

/// Source: apiserver `handlers/patch.go`, `maxJSONPatchOperations`.
const OPERATIONS_MAX: usize = 10_000;
/// What all `copy` operations of one patch may add together. Source: apiserver `jsonpatch.AccumulatedCopySizeLimit`.
const COPIED_BYTES_MAX: usize = 3 << 20;

/// Applies all operations, or none.
pub fn json_patch(object: &mut Value, operations: &Value) -> Result<(), PatchError> {
    let count = operations.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        let message =
            format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(PatchError::TooLarge(message));
    }
    let operations: Vec<PatchOperation> = serde_json::from_value(operations.clone())
        .map_err(|error| PatchError::BadRequest(format!("error decoding patch: {error}")))?;
    let mut result = object.clone();
    let mut copied_bytes = 0;
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation
            && let Ok(source) = copy.from.resolve(&result)
        {
            copied_bytes += source.to_string().len();
            if copied_bytes > COPIED_BYTES_MAX {
                let message = format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the limit {COPIED_BYTES_MAX}"
                );
                return Err(PatchError::Unprocessable(message));
            }
        }
        patch_unsafe(&mut result, std::slice::from_ref(&operation))
            .map_err(|error| PatchError::Unprocessable(describe(&operation, &error.kind.to_string())))?;
    }
    *object = result;
    Ok(())
}

fn describe(operation: &PatchOperation, why: &str) -> String {
    let name = match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    };
    format!("{name} operation does not apply to {}: {why}", operation.path())
}
