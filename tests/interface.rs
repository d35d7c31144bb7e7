//! What a package takes and returns where that is not what the source does: images, labels, optional inputs, names, types.

mod support;

use mlconv::{
    arrays::{Arrays, read_npz},
    pictures::{Size, decode, resized},
};
use mlconv_proto::onnx::tensor_proto::DataType;
use mlconv_tensor::{DType, Tensor};
use std::{fs, path::Path};
use support::{
    onnx::{Onnx, int, ints, numbers, open, value},
    place::{Done, Place},
};

const F32: DataType = DataType::Float;

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).display().to_string()
}

fn picture(name: &str) -> String {
    fixture(&format!("pictures/{name}"))
}

fn pixels(name: &str) -> Tensor {
    decode(&fs::read(picture(name)).expect("a fixture")).expect("a picture").picture
}

fn pillow() -> Arrays {
    read_npz(Path::new(&picture("expected.npz"))).expect("expectations")
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{worst} apart");
}

#[test]
fn files_are_the_pixels_that_pillow_finds() {
    // Decoders of JPEG round in other places, and more where colours are stored at half the size.
    for (name, tolerance) in [
        ("rgb.png", 0.0),
        ("gray.png", 0.0),
        ("rgba.png", 0.0),
        ("opaque.png", 0.0),
        ("palette.png", 0.0),
        ("deep.png", 0.0),
        ("rgb.jpg", 2.0),
        ("gray.jpg", 1.0),
        ("turned.jpg", 6.0),
        ("progressive.jpg", 6.0),
    ] {
        let (got, want) = (pixels(name), &pillow()[name]);
        assert_eq!(got.shape(), want.shape(), "{name}");
        let worst = got.to_f64().iter().zip(want.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= tolerance, "{name}: {worst} apart");
    }
}

#[test]
fn what_is_left_out_of_a_file_is_said() {
    let notes = |name: &str| decode(&fs::read(picture(name)).expect("a fixture")).expect("a picture").notes;
    for (name, said) in [
        ("rgba.png", "transparent in places"),
        ("deep.png", "16 bits a channel"),
        ("turned.jpg", "shown turned (orientation 6)"),
    ] {
        let notes = notes(name);
        assert!(notes.len() == 1 && notes[0].contains(said), "{name}: {notes:?}");
    }
    assert_eq!((notes("opaque.png"), notes("palette.png")), (vec![], vec![]));
}

#[test]
fn pictures_are_resized_as_pillow_does() {
    for (width, height) in [(8, 8), (40, 10), (24, 30)] {
        let got = resized(&pixels("rgb.png"), Size { width, height });
        assert_close(&got.to_f64(), &pillow()[&format!("rgb.png {width}x{height}")].to_f64(), 1.0);
    }
}

#[test]
fn damaged_files_are_refused() {
    for name in ["rgb.png", "palette.png", "rgb.jpg", "progressive.jpg"] {
        let whole = fs::read(picture(name)).expect("a fixture");
        // Whatever is cut off or changed: a diagnostic or a picture, and no panic.
        for at in (0..whole.len()).step_by(7) {
            let _ = decode(&whole[..at]);
            let mut other = whole.clone();
            other[at] ^= 0x5a;
            let _ = decode(&other);
        }
        assert!(decode(&whole[..whole.len() / 2]).is_err(), "{name}");
    }
    assert!(decode(&fs::read(picture("cmyk.jpg")).expect("a fixture")).is_err_and(|e| e.contains("4 channels")));
    let place = Place::new();
    place.file("m.onnx", &sums(3).bytes());
    place.file("cut.png", &fs::read(picture("rgb.png")).expect("a fixture")[..300]);
    place.file("text.png", b"no picture");
    place.file("p.bmp", b"BM\x46\0\0\0");
    for (name, said) in [
        ("cut.png", "PNG file cannot be decoded"),
        ("text.png", "no PNG and no JPEG"),
        ("p.bmp", "no other pictures are"),
    ] {
        place.run(&["run", "m.onnx", "--image", "x=rgb", "--input", &format!("x={name}")]).fails("R0008", said);
    }
    place.run(&["run", "m.onnx", "--image", "x=rgb", "--input", "x=none.png"]).fails("R0001", "none.png");
    place
        .run(&["convert", "m.onnx", "-o", "p.mlpackage", "--input", "x=p.bmp"])
        .fails("L0001", "take it with `--sample`");
}

/// `y[k] = conv(x)[k]`, of `channels` channels: 1 x 1, so that borders do not matter, and 3 x 3 with padding behind it.
fn sums(channels: i64) -> Onnx {
    let mut model = Onnx::new()
        .input("x", F32, &[1, channels, 18, 24])
        .weight("a", &[4, channels, 3, 3], &numbers(36 * channels as usize))
        .weight("b", &[2, 4, 1, 1], &numbers(8))
        .node("Conv", &["x", "a"], &["h"])
        .node("Relu", &["h"], &["r"])
        .node("Conv", &["r", "b"], &["y"])
        .output("y", F32, &[1, 2, 18, 24]);
    model.graph().node[0].attribute.push(ints("pads", &[1, 1, 1, 1]));
    model
}

/// What a model gets of a picture, worked out by hand: pixel by pixel, channel by channel.
fn by_hand(picture: &Tensor, order: &[usize], mean: &[f64], std: &[f64]) -> Tensor {
    let [height, width] = [picture.shape()[0], picture.shape()[1]];
    let (values, channels) = (picture.to_f64(), picture.shape().get(2).copied().unwrap_or(1));
    let mut out = vec![];
    for (i, c) in order.iter().enumerate() {
        for p in 0..height * width {
            out.push(((values[p * channels + c] / 255.0 - mean[i]) / std[i]) as f32);
        }
    }
    Tensor::from_vec(&[1, order.len(), height, width], out)
}

fn output(place: &Place, args: &[&str], name: &str) -> Tensor {
    place.run(&[&["run"], args, &["--outputs", "out.npz"]].concat()).ok();
    read_npz(&place.path("out.npz")).expect("outputs").swap_remove(name).expect("an output")
}

/// Converts for single precision; what it said.
fn convert(place: &Place, model: &str, options: &[&str]) -> Done {
    place.run(&[&["convert", model, "-o", "p.mlpackage", "--force", "--precision", "fp32"], options].concat()).ok()
}

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

#[test]
fn a_picture_is_what_preprocessing_by_hand_makes_of_it() {
    let back = |of: [f64; 3]| of.into_iter().rev().collect::<Vec<_>>();
    let (rgb, bgr) = ([0, 1, 2], [2, 1, 0]);
    for (file, option, order, mean, std) in [
        ("rgb.png", "x=rgb,imagenet", &rgb[..], MEAN.to_vec(), STD.to_vec()),
        (
            "rgb.jpg",
            "x=rgb,scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
            &rgb,
            MEAN.to_vec(),
            STD.to_vec(),
        ),
        ("rgba.png", "x=bgr,imagenet", &bgr, back(MEAN), back(STD)),
        ("progressive.jpg", "bgr,scale=1/255,mean=0.4,std=0.2:0.3:0.5", &bgr, vec![0.4; 3], vec![0.2, 0.3, 0.5]),
        ("gray.png", "x=gray,scale=1/255,mean=0.5,std=0.25", &[0], vec![0.5], vec![0.25]),
        ("gray.jpg", "x,scale=1/255", &[0], vec![0.0], vec![1.0]),
        ("gray.jpg", "gray,scale=1/255,bias=-0.5", &[0], vec![0.5], vec![1.0]),
    ] {
        let place = Place::new();
        place.file("m.onnx", &sums(order.len() as i64).bytes());
        let option = option.replace("x,", "x=gray,");
        let hand = by_hand(&pixels(file), order, &mean, &std);
        place.arrays("hand.npz", &[("x", hand)]);
        let want = output(&place, &["m.onnx", "--inputs", "hand.npz"], "y").to_f64();
        let given = format!("x={}", picture(file));
        let source = output(&place, &["m.onnx", "--image", &option, "--input", &given], "y");
        assert_close(&source.to_f64(), &want, 1e-4);
        let said = convert(&place, "m.onnx", &["--image", &option, "--sample", &given]).stderr;
        assert!(said.contains("on the samples"), "{said}");
        assert_close(&output(&place, &["p.mlpackage", "--input", &given], "y").to_f64(), &want, 1e-4);
        // The package says what becomes of pixels, and `verify` asks it of the source.
        place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--sample", &given]).ok();
        place.run(&["verify", "p.mlpackage", "--against", "m.onnx"]).ok();
    }
}

#[test]
fn arrays_of_bytes_are_pictures_and_others_are_pixels() {
    let place = Place::new();
    place.file("m.onnx", &sums(3).bytes());
    convert(&place, "m.onnx", &["--image", "x=rgb,imagenet"]);
    let given = format!("x={}", picture("rgb.png"));
    let want = output(&place, &["p.mlpackage", "--input", &given], "y").to_f64();
    let pixels = pixels("rgb.png");
    let planes = by_hand(&pixels, &[0, 1, 2], &[0.0; 3], &[1.0 / 255.0; 3]);
    let whole = planes.to_f64().iter().map(|x| x.round() as f32).collect();
    let planes = Tensor::from_vec(&[1, 3, 18, 24], whole);
    for (t, warns) in [(pixels, false), (planes, false), (Tensor::splat(DType::F32, &[1, 3, 18, 24], 0.5), true)] {
        place.arrays("in.npz", &[("x", t)]);
        let run = place.run(&["run", "p.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz"]).ok();
        assert_eq!(run.stderr.contains("whole numbers from 0 to 255"), warns, "{}", run.stderr);
        if !warns {
            let got = read_npz(&place.path("out.npz")).expect("outputs");
            assert_close(&got["y"].to_f64(), &want, 1e-5);
        }
    }
}

#[test]
fn a_recipe_says_what_the_interface_is() {
    let place = Place::new();
    fs::create_dir(place.path("r")).expect("a folder");
    place.file("m.onnx", &sums(3).bytes());
    place.file("r/labels.txt", b"first\nsecond\n");
    let mut model = sums(3).node("GlobalAveragePool", &["y"], &["z"]).output("z", F32, &[1, 2, 1, 1]);
    model.graph().output.remove(0);
    place.file("m.onnx", &model.bytes());
    place.file(
        "r/mlconv.toml",
        b"[convert]\nimages = { x = 'bgr,imagenet' }\nclass_labels = 'labels.txt'\nclass_softmax = true\n\
          renames = { classLabel = 'label' }\n[verify]\nsamples = ['x=rgb.png']\nresize = { x = '24x18' }\n",
    );
    place.file("r/rgb.png", &fs::read(picture("rgb.png")).expect("a fixture"));
    convert(&place, "m.onnx", &["--recipe", "r/mlconv.toml"]);
    let by_recipe = place.package("p.mlpackage");
    let typed = ["--image", "x=bgr,imagenet", "--class-labels", "first,second", "--class-softmax"];
    convert(&place, "m.onnx", &[&typed[..], &["--rename", "classLabel=label"]].concat());
    assert!(by_recipe == place.package("p.mlpackage"), "the same bytes");
}

#[test]
fn a_grey_picture_for_colours_and_the_other_way_round() {
    let place = Place::new();
    place.file("m.onnx", &sums(1).bytes());
    let gray = &pillow()["rgb.png gray"];
    place.arrays("hand.npz", &[("x", by_hand(gray, &[0], &[0.0], &[1.0]))]);
    let want = output(&place, &["m.onnx", "--inputs", "hand.npz"], "y").to_f64();
    let given = format!("x={}", picture("rgb.png"));
    let got = output(&place, &["m.onnx", "--image", "x=gray,scale=1/255", "--input", &given], "y");
    assert_close(&got.to_f64(), &want, 1e-5);
}

#[test]
fn channels_may_come_last() {
    let place = Place::new();
    let mut model = Onnx::new()
        .input("x", F32, &[1, 18, 24, 3])
        .weight("w", &[2, 3, 1, 1], &numbers(6))
        .node("Transpose", &["x"], &["t"])
        .node("Conv", &["t", "w"], &["y"])
        .output("y", F32, &[1, 2, 18, 24]);
    model.graph().node[0].attribute.push(ints("perm", &[0, 3, 1, 2]));
    place.file("m.onnx", &model.bytes());
    let hand = by_hand(&pixels("rgb.png"), &[0, 1, 2], &MEAN, &STD);
    place.file("nchw.onnx", &{
        let plain = Onnx::new().input("x", F32, &[1, 3, 18, 24]).weight("w", &[2, 3, 1, 1], &numbers(6));
        plain.node("Conv", &["x", "w"], &["y"]).output("y", F32, &[1, 2, 18, 24]).bytes()
    });
    place.arrays("hand.npz", &[("x", hand)]);
    let want = output(&place, &["nchw.onnx", "--inputs", "hand.npz"], "y").to_f64();
    convert(&place, "m.onnx", &["--image", "x=rgb,imagenet"]);
    let given = format!("x={}", picture("rgb.png"));
    assert_close(&output(&place, &["p.mlpackage", "--input", &given], "y").to_f64(), &want, 1e-4);
    let shown = place.run(&["inspect", "p.mlpackage"]).ok().stdout;
    assert!(shown.contains("f32[1, 3, 18, 24]") && !shown.contains("transpose"), "{shown}");
}

#[test]
fn a_trained_classifier_takes_pictures_and_names_classes() {
    let place = Place::new();
    let model = fixture("models/digits_cnn/model.onnx");
    let image = ["--image", "image=gray,scale=1/16"];
    let expected = read_npz(Path::new(&fixture("models/digits_cnn/expected.npz"))).expect("expectations");
    let want = &expected["logits"].to_f64()[..20];
    for i in 0..2 {
        let given = format!("image={}", picture(&format!("digit{i}.png")));
        let got = output(&place, &[&model, image[0], image[1], "--input", &given], "logits").to_f64();
        assert_close(&got, &want[10 * i..10 * (i + 1)], 1e-4);
    }
    let samples: Vec<String> = (0..2).map(|i| format!("image={}", picture(&format!("digit{i}.png")))).collect();
    let names = "zero,one,two,three,four,five,six,seven,eight,nine";
    let options = ["--class-labels", names, "--class-softmax", "--sample", &samples[0], "--sample", &samples[1]];
    let args = ["convert", &model, "-o", "p.mlpackage"];
    let said = place.run(&[&args[..], &image, &options].concat()).ok().stderr;
    assert!(said.contains("on 2 samples") && said.contains("classLabel_probs"), "{said}");
    for i in 0..2 {
        let scores = &want[10 * i..10 * (i + 1)];
        let best = (0..10).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).expect("ten");
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        let name = names.split(',').nth(best).expect("ten");
        let label = output(&place, &["p.mlpackage", "--input", &samples[i]], "classLabel_probs");
        assert_close(&label.to_f64(), &scores.iter().map(|s| s.exp() / sum).collect::<Vec<_>>(), 2e-3);
        let json = place.run(&["run", "p.mlpackage", "--input", &samples[i], "--format", "json"]).ok().json();
        assert_eq!(json["outputs"][0]["text"], name);
        assert_eq!(json["outputs"][1]["classes"][0][0], name);
        let shown = place.run(&["run", "p.mlpackage", "--input", &samples[i]]).ok().stdout;
        assert!(shown.contains(&format!("{name:?}")) && shown.contains("10 classes"), "{shown}");
    }
    place.run(&["verify", "p.mlpackage", "--against", &model]).ok();
}

#[test]
fn what_contradicts_a_package_is_no_source_of_it() {
    let place = Place::new();
    place.file("m.onnx", &sums(3).bytes());
    let asked = ["--image", "x=bgr,scale=1/255,bias=-0.5", "--rename", "y=z"];
    place.run(&[&["convert", "m.onnx", "-o", "p.mlpackage"], &asked[..]].concat()).ok();
    let verify = |options: &[&str]| place.run(&[&["verify", "p.mlpackage", "--against", "m.onnx"], options].concat());
    for agrees in
        [&asked[..], &["--image", "bgr,scale=1/255,mean=0.5"], &["--image", "x=bgr,scale=1/255,bias=-0.5:-0.5:-0.5"]]
    {
        verify(agrees).ok();
    }
    let with = "which was made with `--image x=bgr,scale=0.00392156862745098,bias=-0.5`";
    verify(&["--image", "x=rgb,scale=1/255,bias=-0.5"]).fails("L0001", with);
    verify(&["--image", "bgr"]).fails("L0001", "`--image x=bgr` contradicts the package, which");
    verify(&["--rename", "y=w"])
        .fails("L0001", "`--rename y=w` contradicts the package, which was made with `--rename y=z`");
}

#[test]
fn declared_ranges_are_kept_with_the_package() {
    let place = Place::new();
    let model = Onnx::new().input("x", F32, &[1, 4]).input("i", DataType::Int32, &[1]).weight("ten", &[1], &[10.0]);
    let model = model.node("Sub", &["x", "ten"], &["d"]).node("Sqrt", &["d"], &["y"]).output("y", F32, &[1, 4]);
    place.file("m.onnx", &model.node("Identity", &["i"], &["j"]).output("j", DataType::Int32, &[1]).bytes());
    let convert = |options: &[&str]| {
        place.run(&[&["convert", "m.onnx", "-o", "p.mlpackage", "--force", "--range", "x=11:12"], options].concat())
    };
    let said = convert(&[]).ok().stderr;
    let nothing = "no element of `y` is finite";
    assert!(!said.contains(nothing), "{said}");
    let verify = |options: &[&str]| {
        let done = place.run(&[&["verify", "p.mlpackage", "--against", "m.onnx"], options].concat());
        done.stderr.contains(nothing)
    };
    assert_eq!((verify(&[]), verify(&["--range", "x=1:2"])), (false, true));
    convert(&["--range", "x=1:2"]).fails("L0001", "the range of this input is given twice");
    convert(&["--range", "i=0.2:0.8"]).fails("L0001", "there is no integer in the range");
    convert(&["--optional", "i=1", "--optional", "i=2"]).fails("L0001", "`--optional i`: it is given twice");
    place.arrays(
        "in.npz",
        &[("x", Tensor::from_vec(&[1, 4], vec![11f32, 20.0, 12.0, 11.5])), ("i", Tensor::from_vec(&[1], vec![1i32]))],
    );
    let said = convert(&["--sample", "in.npz"]).stderr;
    assert!(said.contains("`x`, which is declared to hold 11 to 12, is given 20\n"), "{said}");
}

#[test]
fn samples_of_a_script_are_rows_where_that_is_known() {
    let place = Place::new();
    let model = fixture("models/digits_cnn/model.pt");
    let convert =
        |options: &[&str]| place.run(&[&["convert", &model, "-o", "p.mlpackage", "--force"], options].concat());
    let given: Vec<String> = (0..2).map(|i| format!("image={}", picture(&format!("digit{i}.png")))).collect();
    let pictures = ["--sample", &given[0], "--sample", &given[1]];
    let image = ["--image", "image=gray,scale=1/16"];
    let said = convert(&[&pictures[..], &image].concat()).ok().stderr;
    assert!(said.contains("on 2 samples"), "{said}");
    for pictures in [&pictures[..], &pictures[..2]] {
        convert(pictures).fails("L0001", "say what the model does with pixels: `--image image=gray,scale=1/255`");
    }
    let batch = |shape: &[usize]| place.arrays("in.npz", &[("image", Tensor::splat(DType::F32, shape, 0.5))]);
    let fixed = "input `image` is fixed to the shape of its sample, 6x1x8x8";
    batch(&[6, 1, 8, 8]);
    let said = convert(&["--sample", "in.npz"]).ok().stderr;
    assert!(said.contains(fixed) && said.contains("say `--input image=1x1x8x8`"), "{said}");
    for options in [["--input", "image=1x1x8x8"], ["--labels", "labels.npz"]] {
        place.arrays("labels.npz", &[("labels", Tensor::from_vec(&[6], vec![3i32; 6]))]);
        let said = convert(&[&["--sample", "in.npz"], &options[..]].concat()).ok().stderr;
        assert!(said.contains("on 6 samples") && !said.contains(fixed), "{said}");
    }
    // A network of pictures takes no fifth axis.
    batch(&[3, 1, 1, 8, 8]);
    let said = convert(&["--sample", "in.npz"]).ok().stderr;
    assert!(said.contains("on 3 samples") && !said.contains("is fixed"), "{said}");
}

#[test]
fn inputs_that_are_no_images_are_refused() {
    let place = Place::new();
    let model =
        |dims: &[i64]| Onnx::new().input("x", F32, dims).node("Relu", &["x"], &["y"]).output("y", F32, dims).bytes();
    place.file("m.onnx", &model(&[1, 3, 4, 5]));
    place.file("rank.onnx", &model(&[3, 4, 5]));
    place.file("batch.onnx", &model(&[2, 3, 4, 5]));
    place.file("open.onnx", &{
        let mut model = Onnx::new().input("x", F32, &[1, 3, 4, 5]).node("Relu", &["x"], &["y"]);
        model = model.output("y", F32, &[1, 3, 4, 5]);
        open(&mut model.graph().input[0], 0, "n");
        open(&mut model.graph().output[0], 0, "n");
        model.bytes()
    });
    place.file("channels.onnx", &model(&[1, 2, 4, 5]));
    place.file("ints.onnx", &{
        let cast = |mut m: Onnx| {
            m.graph().node[0].attribute.push(int("to", F32 as i64));
            m
        };
        let int32 = Onnx::new().input("x", DataType::Int32, &[1, 3, 4, 5]);
        cast(int32.node("Cast", &["x"], &["y"])).output("y", F32, &[1, 3, 4, 5]).bytes()
    });
    let refused = |model: &str, options: &[&str], said: &str| {
        place.run(&[&["convert", model, "-o", "p.mlpackage"], options].concat()).fails("L0001", said);
    };
    refused("rank.onnx", &["--image", "x=rgb"], "`--image x`: the tensor is f32[3, 4, 5]");
    refused("batch.onnx", &["--image", "x=rgb"], "one at a time");
    refused("channels.onnx", &["--image", "x"], "1 or 3 channels");
    refused("m.onnx", &["--image", "x=gray"], "with 1 of gray channels");
    refused("m.onnx", &["--image", "y=rgb"], "`y` is an output of the model");
    refused("m.onnx", &["--image", "xx=rgb"], "did you mean `x`?");
    refused("m.onnx", &["--image", "x=rgb", "--image", "x=bgr"], "it is an image already");
    refused("m.onnx", &["--image", "x=scale=1:2"], "2 numbers for 3 channels");
    refused("ints.onnx", &["--image", "x=rgb,scale=2"], "no integers");
    refused("m.onnx", &["--image", "x=rgb,scale=0"], "scale");
    refused("m.onnx", &["--image", "x=rgb,std=0"], "must not be 0");
    refused("m.onnx", &["--image", "x=rgb,mean=1:2"], "2 numbers for 3 channels");
    refused("m.onnx", &["--image", "x=rgb,mean=1,bias=2"], "does not go with them");
    refused("m.onnx", &["--image", "x=rgb,men=1"], "did you mean `mean`?");
    refused("m.onnx", &["--image", "x=rbg"], "is no layout");
    refused("m.onnx", &["--image", "x=rgb,scale=one"], "is no number");
    refused("m.onnx", &["--image", "x=rgb,bgr"], "two layouts");
    refused("open.onnx", &["--image", "x=rgb"], "fix the first size with `--input x=1x3x4x5`");
    refused("m.onnx", &["--image-output", "x=rgb"], "`x` is an input of the model");
    refused("rank.onnx", &["--image-output", "y=rgb"], "the tensor is f32[3, 4, 5]");
    refused("m.onnx", &["--image-output", "y=gray16", "--target", "ios15"], "");
    assert!(!place.path("p.mlpackage").exists());
    place.run(&["convert", "ints.onnx", "-o", "p.mlpackage", "--image", "x=rgb"]).ok();
}

#[test]
fn a_picture_of_another_size_is_refused_or_stretched() {
    let place = Place::new();
    let model = Onnx::new().input("x", F32, &[1, 3, 8, 8]).node("Relu", &["x"], &["y"]).output("y", F32, &[1, 3, 8, 8]);
    place.file("m.onnx", &model.bytes());
    convert(&place, "m.onnx", &["--image", "x=rgb"]);
    let given = format!("x={}", picture("rgb.png"));
    let other = place.run(&["run", "p.mlpackage", "--input", &given]);
    other.fails("N0003", "a picture of 24 x 18 pixels, and the model takes 8 x 8");
    assert!(other.stderr.contains("`--resize x=8x8`"), "{}", other.stderr);
    for option in ["x=8x8", "8x8"] {
        let got = output(&place, &["p.mlpackage", "--input", &given, "--resize", option], "y");
        let hand = by_hand(&pillow()["rgb.png 8x8"], &[0, 1, 2], &[0.0; 3], &[1.0 / 255.0; 3]);
        assert_close(&got.to_f64(), &hand.to_f64(), 1.01);
    }
    place
        .run(&["run", "p.mlpackage", "--input", &given, "--resize", "z=8x8"])
        .fails("L0001", "no picture is called `z`");
    place.run(&["run", "p.mlpackage", "--input", &given, "--resize", "8"]).fails("L0001", "is no size");
    // The model itself does not know what pixels are.
    let plain = place.run(&["run", "m.onnx", "--input", &given]);
    plain.fails("N0003", "wanted f32[1, 3, 8, 8]");
    let odd = place.run(&["run", "m.onnx", "--input", &given, "--resize", "8x8"]);
    assert!(odd.stderr.contains("--image x=rgb"), "{}", odd.stderr);
}

#[test]
fn images_may_have_open_sizes_or_a_choice() {
    let place = Place::new();
    let mut model = Onnx::new().weight("w", &[2, 3, 3, 3], &numbers(54)).node("Conv", &["x", "w"], &["y"]);
    let mut input = value("x", F32, &[1, 3, 18, 24]);
    input.r#type = None;
    model.graph().input.push(value("x", F32, &[1, 3, -1, -1]));
    model = model.node("ReduceMax", &["x"], &["r"]);
    model.graph().output.extend([value("y", F32, &[1, 2, -1, -1]), value("r", F32, &[1, 1, -1, -1])]);
    model.graph().node[0].attribute.push(ints("pads", &[1, 1, 1, 1]));
    model.graph().node[1].attribute.push(ints("axes", &[1]));
    for (axis, name) in [(2, "h"), (3, "w")] {
        open(&mut model.graph().input[0], axis, name);
        model.graph().output.iter_mut().for_each(|o| open(o, axis, name));
    }
    place.file("m.onnx", &model.bytes());
    let given = format!("x={}", picture("rgb.png"));
    let stretched = ["--input", &given, "--resize", "9x7"];
    let hand = by_hand(&pixels("rgb.png"), &[0, 1, 2], &MEAN, &STD);
    place.arrays("hand.npz", &[("x", hand)]);
    let want = output(&place, &["m.onnx", "--inputs", "hand.npz"], "y").to_f64();
    for (shape, ranges) in [("x=1x3x[4..64]x[4..64]", true), ("x=1x3x{18,32}x{24,32}", false)] {
        let options = ["--input", shape, "--image", "x=rgb,imagenet", "--sample", &given, "--image-output", "r=gray"];
        convert(&place, "m.onnx", &options);
        assert_close(&output(&place, &["p.mlpackage", "--input", &given], "y").to_f64(), &want, 1e-4);
        let other = place.run(&[&["run", "p.mlpackage"], &stretched[..]].concat());
        if ranges {
            other.ok();
            let tiny = place.run(&["run", "p.mlpackage", "--input", &given, "--resize", "3x3"]);
            tiny.fails("N0003", "x_2 in 4..=64");
        } else {
            other.fails("N0003", "the model takes 24 x 18 or");
        }
    }
}

#[test]
fn outputs_may_be_images() {
    let place = Place::new();
    let model = Onnx::new().input("x", F32, &[1, 3, 8, 8]).node("Relu", &["x"], &["y"]).output("y", F32, &[1, 3, 8, 8]);
    place.file("m.onnx", &model.bytes());
    convert(&place, "m.onnx", &["--image", "x=rgb", "--image-output", "y=bgr"]);
    let shown = place.run(&["inspect", "p.mlpackage"]).ok().stdout;
    assert_eq!(shown.matches("image, ").count(), 2, "{shown}");
    place.run(&["verify", "p.mlpackage", "--against", "m.onnx"]).ok();
}

/// `y = x * k`, `z = softmax(x)`.
fn two_outputs() -> Onnx {
    Onnx::new()
        .input("x", F32, &[1, 3])
        .input("k", F32, &[1, 3])
        .node("Mul", &["x", "k"], &["y"])
        .node("Softmax", &["x"], &["z"])
        .output("y", F32, &[1, 3])
        .output("z", F32, &[1, 3])
}

#[test]
fn labels_may_be_texts_or_integers() {
    let place = Place::new();
    place.file("m.onnx", &two_outputs().bytes());
    place.file("labels.txt", "cat\nbig dog\nbird\n".as_bytes());
    place.file("labels.json", "[10, -20, 30]".as_bytes());
    let x = Tensor::from_vec(&[1, 3], vec![0.0f32, 2.0, 1.0]);
    let inputs = place.arrays("in.npz", &[("x", x.clone()), ("k", x)]).display().to_string();
    for (file, best) in [("labels.txt", "big dog"), ("labels.json", "-20")] {
        convert(&place, "m.onnx", &["--class-labels", file, "--class-output", "z"]);
        let json = place.run(&["run", "p.mlpackage", "--inputs", &inputs, "--format", "json"]).ok().json();
        let names: Vec<_> = (0..3).map(|i| json["outputs"][i]["name"].as_str().expect("a name").to_owned()).collect();
        assert_eq!(names, ["classLabel", "classLabel_probs", "y"]);
        assert_eq!(json["outputs"][1]["classes"][0][0], best);
        let label = output(&place, &["p.mlpackage", "--inputs", &inputs], "classLabel_probs");
        assert_close(&label.to_f64(), &[0.09003057, 0.66524096, 0.24472847], 1e-6);
        place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--sample", &inputs]).ok();
    }
    convert(&place, "m.onnx", &["--class-labels", "a,b,c", "--class-output", "z", "--rename", "classLabel=label"]);
    assert!(place.run(&["inspect", "p.mlpackage"]).ok().stdout.contains("called `label` in the package"));
    let refused = |options: &[&str], said: &str| {
        place.run(&[&["convert", "m.onnx", "-o", "n.mlpackage"], options].concat()).fails("L0001", said);
    };
    refused(&["--class-labels", "a,b,c"], "it is not said which is meant");
    refused(&["--class-labels", "a,b", "--class-output", "z"], "2 labels for `z`, which is f32[1, 3]: 3 scores");
    refused(&["--class-labels", "a,,c", "--class-output", "z"], "label 2 is empty");
    refused(&["--class-labels", "none.txt", "--class-output", "z"], "there is no such file");
    refused(&["--class-labels", "a,b,c", "--class-output", "x"], "`x` is an input of the model");
    refused(&["--class-output", "z"], "--class-labels");
    let again =
        place.run(&["convert", "m.onnx", "-o", "n.mlpackage", "--class-labels", "a,b,a", "--class-output", "z"]);
    assert!(again.ok().stderr.contains("`a` stand"), "said");
    let twice = ["convert", "n.mlpackage", "-o", "o.mlpackage", "--class-labels", "a,b,c", "--class-output", "y"];
    place.run(&twice).fails("L0001", "the model has labels already");
}

#[test]
fn inputs_with_a_default_may_be_left_out() {
    let place = Place::new();
    place.file("m.onnx", &two_outputs().bytes());
    convert(&place, "m.onnx", &["--optional", "k=0.5"]);
    let x = Tensor::from_vec(&[1, 3], vec![0.0f32, 2.0, -1.0]);
    let inputs = place.arrays("in.npz", &[("x", x)]).display().to_string();
    assert_eq!(output(&place, &["p.mlpackage", "--inputs", &inputs], "y").to_f64(), [0.0, 1.0, -0.5]);
    assert_eq!(output(&place, &["m.onnx", "--inputs", &inputs, "--optional", "k"], "y").to_f64(), [0.0, 0.0, -0.0]);
    place.run(&["run", "m.onnx", "--inputs", &inputs]).fails("N0003", "input `k` is missing");
    place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--sample", &inputs]).ok();
    let shown = place.run(&["inspect", "p.mlpackage"]).ok().stdout;
    assert!(shown.contains("optional, 0.5 by default"), "{shown}");
    let refused = |options: &[&str], said: &str| {
        place.run(&[&["convert", "m.onnx", "-o", "n.mlpackage"], options].concat()).fails("L0001", said);
    };
    refused(&["--optional", "k", "--optional", "x"], "every input may be left out");
    refused(&["--optional", "q"], "the model has no input `q`");
    refused(&["--optional", "k=many"], "");
    refused(&["--optional", "k=1e39"], "is no value of the input");
    refused(&["--optional", "k", "--input", "k=1x{3,4}"], "");
}

#[test]
fn inputs_and_outputs_may_have_other_names() {
    let place = Place::new();
    place.file("m.onnx", &two_outputs().bytes());
    let said = convert(&place, "m.onnx", &["--rename", "x=pixels", "--rename", "y=x", "--rename", "z=scores"]).stderr;
    assert!(!said.contains("does not allow"), "{said}");
    let t = |a: f32| Tensor::from_vec(&[1, 3], vec![a, 2.0, 3.0]);
    for (first, second) in [("x", "k"), ("pixels", "k")] {
        let inputs = place.arrays("in.npz", &[(first, t(1.0)), (second, t(4.0))]).display().to_string();
        let got = output(&place, &["p.mlpackage", "--inputs", &inputs], "y");
        assert_eq!(got.to_f64(), [4.0, 4.0, 9.0]);
    }
    let shown = place.run(&["inspect", "p.mlpackage"]).ok().stdout;
    for name in ["pixels", "scores"] {
        assert!(shown.contains(&format!("called `{name}` in the package")), "{shown}");
    }
    place.run(&["verify", "p.mlpackage", "--against", "m.onnx"]).ok();
    // Names stay when the package is converted again.
    place.run(&["convert", "p.mlpackage", "-o", "q.mlpackage"]).ok();
    assert!(place.run(&["inspect", "q.mlpackage"]).ok().stdout.contains("called `pixels` in the package"));
    let refused = |options: &[&str], said: &str| {
        place.run(&[&["convert", "m.onnx", "-o", "n.mlpackage"], options].concat()).fails("L0001", said);
    };
    refused(&["--rename", "x=k"], "`x` and `k` would have the same name");
    refused(&["--rename", "x=a.b"], "Core ML does not take the name `a.b`");
    refused(&["--rename", "x=tensor"], "Core ML does not take the name `tensor`");
    refused(&["--rename", "xx=a"], "did you mean `x`?");
    refused(&["--rename", "x"], "wanted the name of an input or output");
}

#[test]
fn arrays_at_the_interface_may_be_of_half_precision() {
    let place = Place::new();
    place.file("m.onnx", &sums(3).bytes());
    let out = ["convert", "m.onnx", "-o", "p.mlpackage"];
    place.run(&[&out[..], &["--io-precision", "fp16"]].concat()).ok();
    let json = place.run(&["inspect", "p.mlpackage", "--format", "json"]).ok().json();
    let function = &json["functions"][0];
    for port in function["ports"].as_array().expect("ports") {
        assert!(port["type"].as_str().is_some_and(|t| t.starts_with("f16")), "{port}");
    }
    let has_cast = |f: &serde_json::Value| f["ops"].as_array().expect("ops").iter().any(|o| o["op"] == "cast");
    assert!(!has_cast(function), "{function}");
    let x = place.arrays("in.npz", &[("x", Tensor::splat(DType::F32, &[1, 3, 18, 24], 0.1))]).display().to_string();
    let run = place.run(&["run", "p.mlpackage", "--inputs", &x]).ok();
    assert!(run.stderr.contains("`x`: elements are f32, and are rounded to f16"), "{}", run.stderr);
    let big = place.arrays("big.npz", &[("x", Tensor::splat(DType::F32, &[1, 3, 18, 24], 1e6))]).display().to_string();
    place.run(&["run", "p.mlpackage", "--inputs", &big]).fails("N0003", "not every value fits");
    place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--sample", &x]).ok();
    let old = ["convert", "m.onnx", "-o", "n.mlpackage", "--io-precision", "fp16", "--target", "ios15"];
    place.run(&old).fails("L0001", "ios15 has no such inputs");
    // And back.
    place.run(&["convert", "p.mlpackage", "-o", "q.mlpackage", "--io-precision", "fp32"]).ok();
    assert!(place.run(&["inspect", "q.mlpackage"]).ok().stdout.contains("x  f32[1, 3, 18, 24]"));
    // Images are no arrays.
    place.run(&[&out[..], &["--force", "--io-precision", "fp16", "--image", "x=rgb"]].concat()).ok();
    assert!(place.run(&["inspect", "p.mlpackage"]).ok().stdout.contains("x  f32[1, 3, 18, 24]"));
}

#[test]
fn names_may_be_exchanged() {
    let (place, model) = (Place::new(), fixture("models/digits_cnn/model.onnx"));
    let convert = |options: &[&str]| {
        place.run(&[&["convert", &model, "-o", "p.mlpackage", "--force", "--no-verify"], options].concat())
    };
    convert(&["--rename", "image=logits", "--rename", "logits=image"]).ok();
    let said = place.run(&["inspect", "p.mlpackage"]).ok().stdout;
    for (port, name) in [("input   image", "logits"), ("output  logits", "image")] {
        let line = said.lines().find(|l| l.trim().starts_with(port));
        assert!(line.is_some_and(|l| l.ends_with(&format!("called `{name}` in the package"))), "{said}");
    }
    for (options, why) in [
        (&["--rename", "image=a", "--rename", "image=b"][..], "it is renamed twice"),
        (&["--image", "image=gray,mean=1e39"], "is out of range"),
        (&["--output", "logits", "--output", "logits"], "is given twice"),
    ] {
        let done = convert(options);
        assert!(done.code == Some(2) && done.stderr.contains(why), "{options:?}: {}", done.stderr);
    }
}
