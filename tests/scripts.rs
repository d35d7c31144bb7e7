//! TorchScript of other code than its exporter wrote: what the command makes of parameters.

#[path = "support/archive.rs"]
mod archive;
mod support;

use std::{fs, process::Command};
use support::fixtures;
use zip::CompressionMethod;

/// Converts the digits' model with this code; whether that is done, and what is said.
fn converted(code: &str, options: &[&str]) -> (bool, String) {
    let model = fs::read(fixtures().join("models/digits_cnn/model.pt")).expect("readable");
    let mut all = archive::entries(&model);
    for (name, bytes) in &mut all {
        if name.ends_with("code/__torch__.py") {
            *bytes = code.as_bytes().to_vec();
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("model.pt"), archive::archived(&all, CompressionMethod::Stored)).expect("room");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlconv"));
    command.args(["convert", "model.pt", "-o", "out.mlpackage", "--no-verify"]).args(options);
    let out = command.current_dir(dir.path()).output().expect("mlconv");
    (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn parameters_behind_one_that_keeps_its_default_are_given() {
    let code = "\
class DigitsCnn(Module):
  __parameters__ = []
  __buffers__ = []
  def forward(self: __torch__.DigitsCnn,
    image: Tensor,
    flag: bool=False,
    extra: Optional[Tensor]=None,
    times: int=1) -> Tensor:
    if torch.__isnot__(extra, None):
      y = torch.add(image, unchecked_cast(Tensor, extra))
    else:
      ops.prim.RaiseException(\"no extra\")
      y = image
    if torch.ne(times, 3):
      ops.prim.RaiseException(\"not three times\")
    else:
      pass
    return torch.mul(y, times)
";
    let (image, extra) = (["--input", "image=1x8"], ["--input", "extra=1x8"]);
    let (done, says) = converted(code, &[image, extra, ["--input", "times=3"]].concat());
    assert!(done, "{says}");
    let (done, says) = converted(code, &[image, extra].concat());
    assert!(!done && says.contains("not three times"), "{says}");
    let (done, says) = converted(code, &image);
    assert!(!done && says.contains("no extra"), "{says}");
}
