//! Lists in packages.

use mlconv_coreml::{Existing, Package, export, import, legalize, write};
use mlconv_mil::{ir::Module, text, verify::verify};

const PROGRAM: &str = "\
symbol s = 1..8
func @main(%x: f32[s, 2], %times: i32[1]) ios15 {
  %none = const(val=i32[] 0)
  %end = squeeze(x=%times) : i32[]
  %empty = make_list(init_length=%none, elem_shape=[-1, 2])
  %i, %filled = while_loop(loop_vars=(%none, %empty), cond={(%k: i32[], %l: list<f32[e, 2], 0>)
      %go = less(x=%k, y=%end)
      yield %go}, body={(%k2: i32[], %l2: list<f32[e, 2], 0>)
      %one = const(val=i32[] 1)
      %next = add(x=%k2, y=%one)
      %l3 = list_write(ls=%l2, index=%k2, value=%x)
      yield %next, %l3})
  %fixed = make_list(dynamic_length=false, elem_shape=[2], dtype=\"int32\")
  %len = list_length(ls=%fixed)
  %at = const(val=i32[2] [1, 0])
  %got = list_gather(ls=%filled, indices=%at)
  return %got, %len
}
";

/// The module as text, without the types of results: sizes that are not known have other names in each.
fn untyped(module: &Module) -> String {
    let text = text::print(module, text::Elide::Never);
    text.lines().map(|l| l.rsplit_once(") : ").map_or(l, |(op, _)| op)).collect::<Vec<_>>().join("\n")
}

/// The module as a package and back.
fn through_a_package(module: Module) -> Module {
    let exported = export(&verify(module).expect("it verifies")).expect("it keeps to the rules");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("lists.mlpackage");
    write(&path, &exported.model, &exported.weights, Existing::Keep).expect("room");
    let (again, warnings) = import(&Package::read(&path).expect("a package")).expect("a module");
    assert!(warnings.is_empty(), "{warnings:?}");
    again
}

#[test]
fn what_is_written_reads_back() {
    let mut module = text::parse(PROGRAM).expect("a program");
    legalize(&mut module).expect("nothing that a package cannot say");
    let once = through_a_package(module);
    let found = untyped(&once);
    for argument in ["elem_shape=[-1, 2]", "elem_shape=[2]", "dynamic_length=false", "dtype=\"int32\""] {
        assert!(found.contains(argument), "no {argument} in\n{found}");
    }
    assert_eq!(found, untyped(&through_a_package(once)));
}
