//! Archives of PyTorch that were made to harm whoever reads them: each is one diagnostic and exit 2, nothing that they ask
//! for happens, and they take little time and memory.

#[path = "support/archive.rs"]
mod archive;
mod support;

use archive::{Entries, archived};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use support::fixtures;
use zip::CompressionMethod;

/// The entries of the digits' model.
fn entries(model: &str) -> Entries {
    archive::entries(&fs::read(fixtures().join("models/digits_cnn").join(model)).expect("readable"))
}

/// The digits' model with other bytes for the entries whose names end so.
fn with(model: &str, suffix: &str, bytes: &[u8]) -> Vec<u8> {
    let mut all = entries(model);
    let mut found = false;
    for (name, old) in &mut all {
        if name.ends_with(suffix) {
            *old = bytes.to_vec();
            found = true;
        }
    }
    assert!(found, "{model} has no {suffix}");
    archived(&all, CompressionMethod::Stored)
}

/// Little memory and time, a folder of its own: the file is refused, and what is said holds all of `says`.
#[track_caller]
fn refused(file: &str, bytes: &[u8], says: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join(file), bytes).expect("room");
    let script = format!(
        "ulimit -v 4194304; exec timeout -s KILL 30 '{}' convert {file} -o out.mlpackage --quiet {}",
        env!("CARGO_BIN_EXE_mlconv"),
        if Path::new(file).extension().is_some_and(|e| e == "pt2") { "" } else { "--input image=1x1x8x8" },
    );
    let out = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("sh");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("error[").count(), 1, "{stderr}");
    for text in says {
        assert!(stderr.contains(text), "`{text}` is not in\n{stderr}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left, [file], "something was written");
}

/// A TorchScript archive with this pickle for its module.
#[track_caller]
fn pickled(pickle: &[u8], says: &[&str]) {
    refused("model.pt", &with("model.pt", "/data.pkl", pickle), says);
}

#[test]
fn calls_of_functions_are_refused() {
    pickled(b"\x80\x02cposix\nsystem\nX\x0c\x00\x00\x00touch pwned.\x85R.", &["`posix.system`", "nothing was run"]);
    pickled(b"cos\nsystem\n(S'touch pwned'\ntR.", &["`os.system`"]);
    pickled(b"(S'touch pwned'\nios\nsystem\n.", &["`os.system`"]);
    pickled(b"(cos\nsystem\nS'touch pwned'\no.", &["`os.system`"]);
    pickled(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.", &["`os.system`"]);
    pickled(b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.", &["`builtins.eval`"]);
    pickled(b"\x80\x02csubprocess\nPopen\n)\x81.", &["`subprocess.Popen`"]);
    // A name that begins as an allowed one does, and one that climbs out of it.
    pickled(b"\x80\x02ctorch.jit._pickle\nbuild_intlist.__globals__\n)R.", &["build_intlist.__globals__"]);
    pickled(b"\x80\x02ctorch._utils._rebuild_tensor_v2\n__globals__\n)R.", &["nothing was run"]);
}

#[test]
fn pickles_that_claim_much_are_refused() {
    let damaged = "`data.pkl` of the archive: the pickle";
    for claim in [
        b"\x80\x02X\xff\xff\xff\x7fabc.".as_slice(),
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\xff.",
        b"\x80\x02h\x07.",
        b"\x80\x02]a.",
        b"\x80\x02",
        b"",
    ] {
        pickled(claim, &[damaged]);
    }
    pickled(&[b"\x80\x02".as_slice(), &b"(".repeat(200_000), &b"t".repeat(200_000), b"."].concat(), &[]);
    pickled(&[b"\x80\x02".as_slice(), &b"]".repeat(100_000), &b"a".repeat(99_999), b"."].concat(), &[]);
    pickled(b"\x80\x02]q\x00h\x00a.", &["no module"]);
}

/// The module's class, as pickles of the digits' model name it.
const CLASS: &[u8] = b"\x80\x02c__torch__\nDigitsCnn\n)\x81";

#[test]
fn attributes_that_hold_themselves_are_refused() {
    // `training` is not read by code, so weights come from attributes of any kind.
    let circle = [CLASS, b"}X\x05\x00\x00\x00stack]q\x00h\x00asb."].concat();
    pickled(&circle, &[]);
    let mut laughs = [CLASS, b"}X\x05\x00\x00\x00conv1".as_slice(), b"]q\x00"].concat();
    for i in 1..40u8 {
        laughs.extend([b"](h".as_slice(), &[i - 1], b"h", &[i - 1], b"eq", &[i]].concat());
    }
    laughs.extend(b"sb.");
    pickled(&laughs, &[]);
}

#[test]
fn names_that_leave_the_archive_are_refused() {
    for name in ["../../evil", "/etc/evil", "model/../../evil", "model\\..\\evil"] {
        for model in ["model.pt", "model.pt2"] {
            let mut all = entries(model);
            all.push((name.to_owned(), b"x".to_vec()));
            refused(model, &archived(&all, CompressionMethod::Stored), &["R0004", "leaves its folder"]);
        }
    }
}

#[test]
fn entries_that_share_a_name_or_bytes_are_refused() {
    let mut all = entries("model.pt");
    let index = all.iter().position(|(n, _)| n.ends_with("data.pkl")).expect("a pickle");
    // Of the same length, so that the name can be made the same afterwards.
    all.push((all[index].0.replace("data.pkl", "atad.pkl"), b"\x80\x02cos\nsystem\n)R.".to_vec()));
    let mut bytes = archived(&all, CompressionMethod::Stored);
    replace(&mut bytes, b"atad.pkl", b"data.pkl");
    refused("model.pt", &bytes, &["R0004", "data.pkl", "shares"]);

    // The last entry of the directory is made to lie where the first one does.
    let mut bytes = archived(&entries("model.pt"), CompressionMethod::Stored);
    let last = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a directory");
    bytes[last + 42..last + 46].copy_from_slice(&[0; 4]);
    refused("model.pt", &bytes, &["archive"]);
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}

#[test]
fn archives_that_unpack_to_much_are_refused() {
    for (model, entry) in [("model.pt", "/data.pkl"), ("model.pt", "/version"), ("model.pt2", "/model.json")] {
        let mut all = entries(model);
        for (name, bytes) in &mut all {
            if name.ends_with(entry) {
                *bytes = vec![b' '; 300 << 20];
            }
        }
        let bytes = archived(&all, CompressionMethod::Deflated);
        if entry == "/version" {
            // What nobody reads is not unpacked.
            let small = bytes.len() < 1 << 20;
            assert!(small, "{} bytes", bytes.len());
            continue;
        }
        refused(model, &bytes, &["it says that it comes to 314572800 bytes"]);
    }
}

#[test]
fn archives_of_several_models_are_refused() {
    let mut all = entries("model.pt2");
    let (name, graph) = all.iter().find(|(n, _)| n.ends_with("models/model.json")).expect("a graph").clone();
    all.push((name.replace("model.json", "another.json"), graph));
    refused("model.pt2", &archived(&all, CompressionMethod::Stored), &["several models"]);
}

#[test]
fn text_that_is_too_long_is_refused() {
    let long = vec![b' '; (128 << 20) + 1];
    refused("model.pt2", &with("model.pt2", "/model.json", &long), &["134217729 bytes of text"]);
}

#[test]
fn weights_that_are_unpacked_again_and_again_are_refused() {
    // Each name has the same few bytes, spread out to a mebibyte.
    let meta =
        r#"{"dtype": 7, "sizes": [{"as_int": 262144}], "strides": [{"as_int": 0}], "storage_offset": {"as_int": 0}}"#;
    let weight = |i: usize| format!(r#""w{i}": {{"path_name": "weight_0", "tensor_meta": {meta}}}"#);
    let config = format!("{{\"config\": {{{}}}}}", (0..10_000).map(weight).collect::<Vec<_>>().join(", "));
    let bytes = with("model.pt2", "model_weights_config.json", config.as_bytes());
    refused("model.pt2", &bytes, &["very often"]);
}

#[test]
fn damaged_archives_are_refused() {
    for model in ["model.pt", "model.pt2"] {
        let good = archived(&entries(model), CompressionMethod::Stored);
        refused(model, &good[..good.len() / 2], &["not a whole zip archive"]);
        refused(model, b"", &["the file is empty"]);
        refused(model, b"PK\x03\x04", &["not a whole zip archive"]);
        // A weight of which one bit is another.
        let weight = entries(model).into_iter().map(|(_, bytes)| bytes).max_by_key(Vec::len).expect("a weight");
        let mut bad = good.clone();
        let at = good.windows(weight.len()).position(|w| w == weight).expect("stored");
        bad[at + weight.len() / 2] ^= 4;
        refused(model, &bad, &["is damaged: its checksum is another"]);
        // A directory that says that there are more entries than there are.
        let end = good.windows(4).rposition(|w| w == b"PK\x05\x06").expect("an end");
        let mut bad = good.clone();
        bad[end + 8..end + 12].copy_from_slice(&[0xfe, 0xff, 0xfe, 0xff]);
        refused(model, &bad, &["archive"]);
        // Offsets that point beyond the file, and ones that only zip64 could say.
        for offset in [0xffff_fff0_u32, u32::MAX] {
            let mut bad = good.clone();
            bad[end + 16..end + 20].copy_from_slice(&offset.to_le_bytes());
            refused(model, &bad, &["archive"]);
        }
        // An entry that is as long as no zip64 is needed for, and longer than the file.
        let place: [u8; 4] = good[end + 16..end + 20].try_into().expect("four");
        let first = u32::from_le_bytes(place) as usize;
        let mut bad = good.clone();
        bad[first + 20..first + 28].copy_from_slice(&[0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff]);
        refused(model, &bad, &["archive"]);
    }
}

#[test]
fn json_that_is_no_program_is_refused() {
    let json = |text: &[u8], says: &[&str]| refused("model.pt2", &with("model.pt2", "models/model.json", text), says);
    let place = "`models/model.json` of the archive";
    for text in ["", "{", "null", "[]", "{}", "\u{feff}{}", "{\"graph_module\": 1}"] {
        json(text.as_bytes(), &[place]);
    }
    json(&[b"[".repeat(200_000), b"]".repeat(200_000)].concat(), &[place]);
    json(&[b"{\"a\":".repeat(200_000), b"1".to_vec(), b"}".repeat(200_000)].concat(), &[place]);
    json(b"\xff\xfe\x00", &[place]);
    let model = entries("model.pt2").into_iter().find(|(n, _)| n.ends_with("models/model.json")).expect("a graph").1;
    let text = String::from_utf8(model).expect("text");
    // Every number is the greatest there is, the least, or none that an integer can be.
    for number in ["9223372036854775807", "-9223372036854775808", "1e400", "99999999999999999999999", "-1", "0.5"] {
        json(in_place_of_numbers(&text, number).as_bytes(), &[]);
    }
}

/// A text with another number wherever it has an integer as a value.
fn in_place_of_numbers(text: &str, number: &str) -> String {
    let (mut out, mut in_text, mut chars) = (String::new(), false, text.chars().peekable());
    while let Some(c) = chars.next() {
        if c == '"' {
            in_text = !in_text;
        }
        if !in_text && (c.is_ascii_digit() || c == '-') {
            while chars.peek().is_some_and(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '+' | '-')) {
                chars.next();
            }
            out.push_str(number);
        } else {
            out.push(c);
        }
    }
    out
}

#[test]
fn code_that_is_no_torchscript_is_refused() {
    let code = |text: &[u8], says: &[&str]| refused("model.pt", &with("model.pt", "code/__torch__.py", text), says);
    let forward = |body: &str| {
        let head = "class DigitsCnn(Module):\n  __parameters__ = []\n  __buffers__ = []\n";
        format!("{head}  def forward(self: __torch__.DigitsCnn,\n    image: Tensor) -> Tensor:\n{body}")
    };
    code(b"", &["forward"]);
    code(b"import os\nos.system(\"touch pwned\")\n", &[]);
    code(b"\xff\xfe\x00\x01", &["is no text"]);
    for body in [
        "    return __import__(\"os\").system(\"touch pwned\")\n",
        "    return eval(\"1\")\n",
        "    return open(\"pwned\", \"w\")\n",
        "    return image.__class__.__bases__\n",
        "    exec(\"1\")\n    return image\n",
        "    return lambda x: x\n",
        "    return [image for image in image]\n",
        "    return image if True\n",
        "    return (image\n",
        "    return \"image\n",
        "    return self.forward(image, )\n",
        "    _0 = True\n    while _0:\n      _1 = 1\n    return image\n",
        "    for _0 in range(1000000000000):\n      _1 = 1\n    return image\n",
        "    return torch.add(image, *image)\n",
        "    return torch.zeros([4611686018427387904, 4611686018427387904], dtype=None)\n",
        "    return self.nowhere\n",
        "    return nothing\n",
        "    pass\n",
    ] {
        code(forward(body).as_bytes(), &[]);
    }
    for (open, close) in [("(", ")"), ("[", "]"), ("torch.neg(", ")"), ("-", ""), ("not ", "")] {
        let body = format!("    return {}image{}\n", open.repeat(100_000), close.repeat(100_000));
        code(forward(&body).as_bytes(), &[]);
    }
    for again in [
        "    x = [image]\n    _0 = torch.append(x, x)\n    return torch.format(\"{}\", x)\n",
        "    x = [image]\n    for _0 in range(64):\n      x = torch.add(x, x)\n    return x\n",
        "    x = \"a\"\n    for _0 in range(64):\n      x = torch.format(\"{}{}\", x, x)\n    return image\n",
        "    x = [image]\n    for _0 in range(64):\n      x = [x, x]\n    return x\n",
        "    x = (image,)\n    for _0 in range(64):\n      x = (x, x)\n    return x\n",
        "    x = image\n    for _0 in range(1000000):\n      x = __torch__.Pair(x)\n    return x\n",
    ] {
        let pair = "class Pair(NamedTuple):\n  a : Tensor\n";
        code((forward(again) + pair).as_bytes(), &["too many parts"]);
    }
    // Each call is within 90 others, and these are within the calls before.
    let within = |times: usize, inside: &str| "torch.neg(".repeat(times) + inside + &")".repeat(times);
    code(forward(&format!("    return {}\n", within(90, "self.forward(image, )"))).as_bytes(), &["too deeply"]);
    let links: String = (0..60).fold("image".to_owned(), |x, _| format!("torch.neg({x}){}", ".a".repeat(60)));
    code(forward(&format!("    return {links}\n")).as_bytes(), &["too deeply"]);
    let views = |op: &str| format!("    x = image\n    for _0 in range(20000):\n      x = {op}\n    return x\n");
    code(forward(&views("torch.slice(x, 0, 0, 1, 1)")).as_bytes(), &["more than 256 deep"]);
    code(forward(&views("torch.add_(torch.detach(x), torch.nowhere(x))")).as_bytes(), &["nowhere"]);
    let deep: Vec<String> = (2..5002).map(|depth| "  ".repeat(depth) + "if True:\n").collect();
    code(forward(&format!("{}{}return image\n", deep.concat(), "  ".repeat(5002))).as_bytes(), &[]);
}

#[test]
fn inputs_of_torchscript_are_known_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = fixtures().join("models/digits_cnn/model.pt");
    let said = |input: &str| {
        let run = Command::new(env!("CARGO_BIN_EXE_mlconv"))
            .args(["convert", "-o", "out.mlpackage", "--input", input])
            .arg(&model)
            .current_dir(dir.path())
            .output()
            .expect("mlconv");
        assert_eq!(run.status.code(), Some(2));
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    assert!(said("picture=1x1x8x8").contains("there is no input `picture`; `forward` takes `image`"));
}

#[test]
fn what_holds_no_graph_says_how_to_export_it() {
    let saved = |pickle: &[u8], says: &[&str]| {
        let all = [("a/data.pkl".to_owned(), pickle.to_vec()), ("a/version".to_owned(), b"3\n".to_vec())];
        refused("model.pth", &archived(&all, CompressionMethod::Stored), says);
    };
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n\
        X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR";
    let dict = [b"}X\x01\x00\x00\x00w".as_slice(), tensor, b"s"].concat();
    let weights = ["R0002", "load_state_dict", "torch.export.save"];
    saved(&[b"\x80\x02".as_slice(), &dict, b"."].concat(), &[&["a state dict"], weights.as_slice()].concat());
    let inside = [b"\x80\x02}X\x05\x00\x00\x00model".as_slice(), &dict, b"s."].concat();
    saved(&inside, &[&["a checkpoint"], weights.as_slice()].concat());
    let whole = ["R0002", "weights_only=False", "torch.export.save"];
    saved(b"\x80\x02cmy.models\nNet\n)\x81}b.", &[&["`my.models.Net`", "nothing was run"], whole.as_slice()].concat());
    saved(b"\x80\x02}.", &whole);
    // As torch.save wrote before it wrote archives, and any other pickle.
    refused("model.pth", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", &whole);
    refused("model.pkl", b"\x80\x04\x95\x01\x00\x00\x00\x00\x00\x00\x00N.", &whole);
}
