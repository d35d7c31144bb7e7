//! `.mlpackage` folders on disk. The only part of this crate that touches files.

mod stage;

pub use stage::{Existing, abandon, check_file, check_target};

use crate::{
    Access, Entry, Error, Manifest, PathProblem, Plan, Result, WeightFile, Weights, manifest::relative, weights,
};
use mlconv_proto::{
    Message,
    coreml::{Model, mil, model},
};
use mlconv_tensor::{Bytes, DType, Tensor, map_file};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const MANIFEST: &str = "Manifest.json";
const MODEL_PATH: &str = "@model_path/";

/// A package that has been read. Its weight files are mapped when a program refers to them.
#[derive(Debug)]
pub struct Package {
    /// The model file.
    pub model: Model,
    /// Absent for a model file without a package.
    pub manifest: Option<Manifest>,
    /// Paths below `Data/` that the manifest names and that are not there. Core ML refuses such a package; it can be read
    /// all the same, as the usual cause is a folder of weights that is empty, which git does not keep.
    pub missing: Vec<String>,
    /// What the program's blobs are looked up in.
    pub weights: WeightFiles,
}

/// The weight files of a package, by the names that a program gives them.
#[derive(Debug)]
pub struct WeightFiles {
    place: Option<Place>,
    open: Mutex<BTreeMap<String, WeightFile>>,
}

/// Where names that start with `@model_path/` lead.
#[derive(Debug)]
struct Place {
    /// The package, without links in its path; nothing outside is opened.
    package: PathBuf,
    /// The folder of the model file, as it was asked for.
    model_path: PathBuf,
}

impl Package {
    /// Reads a package, or a model file on its own, which then has no weight files.
    pub fn read(path: &Path) -> Result<Self> {
        if fs::metadata(path).map_err(io_error(Access::Read, path))?.is_file() {
            let model = decode(path, path)?;
            return Ok(Self { model, manifest: None, missing: vec![], weights: WeightFiles::new(None) });
        }
        let manifest_path = path.join(MANIFEST);
        if !manifest_path.is_file() {
            return Err(Error::NotAPackage { path: path.into() });
        }
        let manifest = Manifest::parse(&open(&manifest_path, &manifest_path)?)?;
        let package = path.canonicalize().map_err(io_error(Access::Read, path))?;
        let data = path.join("Data");
        let mut missing = vec![];
        for item in manifest.items.values() {
            if !data.join(item.relative_path()?).exists() {
                missing.push(item.path.clone());
            }
        }
        let root = manifest.root()?;
        if missing.contains(&root.path) {
            return Err(Error::MissingItem { path: root.path.clone() });
        }
        let model_file = data.join(root.relative_path()?);
        let model = decode(&inside(&package, &model_file, &root.path)?, &model_file)?;
        let model_path = model_file.parent().unwrap_or(&data).to_path_buf();
        let weights = WeightFiles::new(Some(Place { package, model_path }));
        Ok(Self { model, manifest: Some(manifest), missing, weights })
    }

    /// The ML program.
    ///
    /// Errors: [`Error::NotAProgram`] says what the model is instead.
    pub fn program(&self) -> Result<&mil::Program> {
        program(&self.model)
    }
}

impl WeightFiles {
    fn new(place: Option<Place>) -> Self {
        Self { place, open: Mutex::default() }
    }

    /// Whether nothing has been looked up.
    pub fn are_unread(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The file that programs call `name`, such as `@model_path/weights/weight.bin`.
    pub fn file(&self, name: &str) -> Result<WeightFile> {
        let place = self.place.as_ref().ok_or_else(|| Error::NoPackage { name: name.into() })?;
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(name) {
            return Ok(file.clone());
        }
        let unsafe_path = |problem| Error::UnsafePath { path: name.into(), problem };
        let rest = name.strip_prefix(MODEL_PATH).ok_or_else(|| unsafe_path(PathProblem::NotAtModelPath))?;
        let path = place.model_path.join(relative(rest).map_err(unsafe_path)?);
        let file = WeightFile::open(open(&inside(&place.package, &path, name)?, &path)?)?;
        files.insert(name.into(), file.clone());
        Ok(file)
    }

    /// The blob that a program's value refers to, which must be of the value's type and shape.
    pub fn get(&self, value: &mil::value::BlobFileValue, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        self.file(&value.file_name)?.get(value.offset, dtype, shape)
    }
}

impl Weights for WeightFiles {
    fn entry(&self, name: &str, offset: u64) -> Result<Entry> {
        self.file(name)?.entry(offset)
    }
}

/// The ML program that `model` is.
///
/// Errors: [`Error::NotAProgram`] says what it is instead.
pub fn program(model: &Model) -> Result<&mil::Program> {
    match &model.r#type {
        Some(model::Type::MlProgram(program)) => Ok(program),
        other => Err(Error::NotAProgram { kind: other.as_ref().map(kind) }),
    }
}

/// Writes a package of `model` and `weights` to `target`, whole or not at all: it is built beside the target and renamed.
/// What an existing target was is deleted only once the new package is in its place; the result is what of it could not
/// be deleted.
pub fn write(target: &Path, model: &Model, weights: &Plan, existing: Existing) -> Result<Option<PathBuf>> {
    stage::replace(target, existing, &|folder| fill(folder, model, weights))
}

/// Bytes of all files of a package of `model` and `weights`.
pub fn size(model: &Model, weights: &Plan) -> u64 {
    let file = if weights.is_empty() { 0 } else { weights.len_bytes() };
    (Manifest::standard(!weights.is_empty()).to_json().len() + model.encoded_len()) as u64 + file
}

fn fill(package: &Path, model: &Model, weights: &Plan) -> Result<()> {
    let manifest = Manifest::standard(!weights.is_empty());
    write_file(&package.join(MANIFEST), &mut |w| w.write_all(manifest.to_json().as_bytes()))?;
    let model_file = package.join("Data").join(manifest.root()?.relative_path()?);
    write_file(&model_file, &mut |w| w.write_all(&model.encode_to_vec()))?;
    if weights.is_empty() {
        return Ok(());
    }
    let name = weights::WEIGHT_FILE.strip_prefix(MODEL_PATH).expect("weight files are named by model path");
    write_file(&model_file.with_file_name(name), &mut |w| weights.write_to(w))
}

/// Creates a file, and the folders above it.
fn write_file(path: &Path, content: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let failed = io_error(Access::Write, path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(&failed)?;
    }
    let mut file = BufWriter::new(File::create_new(path).map_err(&failed)?);
    content(&mut file).and_then(|()| file.flush()).map_err(&failed)
}

/// Reads the model file at `path`, which the user knows as `shown`.
fn decode(path: &Path, shown: &Path) -> Result<Model> {
    Model::decode(open(path, shown)?).map_err(|source| Error::Decode { path: shown.into(), source })
}

/// Maps the file at `path`, which the user knows as `shown`.
fn open(path: &Path, shown: &Path) -> Result<Bytes> {
    let failed = io_error(Access::Read, shown);
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(&failed)?.is_file() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let bytes = File::open(path).and_then(|f| map_file(&f)).map_err(&failed)?;
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::LfsPointer { path: shown.into() });
    }
    Ok(bytes)
}

/// `path` without links, which must be inside `package`; `written` is how the package spells it.
fn inside(package: &Path, path: &Path, written: &str) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(io_error(Access::Read, path))?;
    if !real.starts_with(package) {
        return Err(Error::UnsafePath { path: written.into(), problem: PathProblem::LeavesPackage });
    }
    Ok(real)
}

fn io_error(access: Access, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { access, path: path.into(), source }
}

/// The name of the field that is set.
fn kind(of: &model::Type) -> &'static str {
    use model::Type as T;
    match of {
        T::PipelineClassifier(_) => "pipelineClassifier",
        T::PipelineRegressor(_) => "pipelineRegressor",
        T::Pipeline(_) => "pipeline",
        T::GlmRegressor(_) => "glmRegressor",
        T::SupportVectorRegressor(_) => "supportVectorRegressor",
        T::TreeEnsembleRegressor(_) => "treeEnsembleRegressor",
        T::NeuralNetworkRegressor(_) => "neuralNetworkRegressor",
        T::BayesianProbitRegressor(_) => "bayesianProbitRegressor",
        T::GlmClassifier(_) => "glmClassifier",
        T::SupportVectorClassifier(_) => "supportVectorClassifier",
        T::TreeEnsembleClassifier(_) => "treeEnsembleClassifier",
        T::NeuralNetworkClassifier(_) => "neuralNetworkClassifier",
        T::KNearestNeighborsClassifier(_) => "kNearestNeighborsClassifier",
        T::NeuralNetwork(_) => "neuralNetwork",
        T::ItemSimilarityRecommender(_) => "itemSimilarityRecommender",
        T::MlProgram(_) => "mlProgram",
        T::CustomModel(_) => "customModel",
        T::LinkedModel(_) => "linkedModel",
        T::ClassConfidenceThresholding(_) => "classConfidenceThresholding",
        T::OneHotEncoder(_) => "oneHotEncoder",
        T::Imputer(_) => "imputer",
        T::FeatureVectorizer(_) => "featureVectorizer",
        T::DictVectorizer(_) => "dictVectorizer",
        T::Scaler(_) => "scaler",
        T::CategoricalMapping(_) => "categoricalMapping",
        T::Normalizer(_) => "normalizer",
        T::ArrayFeatureExtractor(_) => "arrayFeatureExtractor",
        T::NonMaximumSuppression(_) => "nonMaximumSuppression",
        T::Identity(_) => "identity",
        T::TextClassifier(_) => "textClassifier",
        T::WordTagger(_) => "wordTagger",
        T::VisionFeaturePrint(_) => "visionFeaturePrint",
        T::SoundAnalysisPreprocessing(_) => "soundAnalysisPreprocessing",
        T::Gazetteer(_) => "gazetteer",
        T::WordEmbedding(_) => "wordEmbedding",
        T::AudioFeaturePrint(_) => "audioFeaturePrint",
        T::SerializedModel(_) => "serializedModel",
    }
}
