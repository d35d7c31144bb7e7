//! Compares readers of ONNX files; see the test.
