// Runs the packages of this folder in Core ML, and writes what they return to results/.
//
//     swift run.swift [cpuOnly] [cpuAndGPU] [cpuAndNeuralEngine] [all]
//
// Needs macOS 13 and Swift 5.9; models with states, and functions other than the default one, need macOS 15 and Swift 6.
// bundle.json says what there is to run; `mlconv` made it, and compares what is in results/ with what it expects.

import CoreML
import CoreVideo
import Foundation

// MARK: - What there is to run

struct Contents: Decodable {
    let models: [Package]
    let samples: [Sample]
}

struct Package: Decodable {
    let path: String
    let sha256: String
    let function: String?
    let stateful: Bool
    let outputs: [Output]
}

struct Output: Decodable {
    let name: String
    let file: String
    let classes: [String]?
}

struct Sample: Decodable {
    let inputs: [Input]
}

struct Input: Decodable {
    let name: String
    let file: String
    let dtype: String
    let shape: [Int]
    let image: String?
}

// MARK: - What is written beside the arrays

struct Report: Encodable {
    var units: String
    var packages: [String]
    var device: String
    var processor: String
    var system: String
    var calls: [Call] = []
}

struct Call: Encodable {
    let model: Int
    let sample: Int
    let milliseconds: Double?
    let error: String?
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

// MARK: - Arrays

/// Bytes of an element, Core ML's name of its type, and NumPy's.
let elements: [String: (size: Int, type: MLMultiArrayDataType, descr: String)] = [
    "f16": (2, .float16, "<f2"),
    "f32": (4, .float32, "<f4"),
    "f64": (8, .double, "<f8"),
    "i32": (4, .int32, "<i4"),
]

/// Calls `body` with each run of elements that lie side by side: where it begins in memory of these strides, where in row-major
/// order, and its length; all in elements.
func eachRun(shape: [Int], strides: [Int], body: (_ strided: Int, _ packed: Int, _ length: Int) -> Void) {
    let count = shape.reduce(1, *)
    let isPacked = shape.isEmpty || strides[strides.count - 1] == 1
    let length = isPacked ? (shape.last ?? 1) : 1
    let axes = isPacked ? max(shape.count - 1, 0) : shape.count
    var index = [Int](repeating: 0, count: axes)
    var packed = 0
    while packed < count {
        var strided = 0
        for axis in 0..<axes {
            strided += index[axis] * strides[axis]
        }
        body(strided, packed, length)
        packed += length
        for axis in (0..<axes).reversed() {
            index[axis] += 1
            if index[axis] < shape[axis] { break }
            index[axis] = 0
        }
    }
}

/// The elements of a .npy file, which bundle.json describes, in row-major order.
func readElements(_ url: URL, count: Int, size: Int) throws -> Data {
    let data = try Data(contentsOf: url)
    guard data.count >= 10, data[1] == 0x4E, data[6] == 1 else { throw Failure("\(url.path) is no .npy file of version 1") }
    let start = 10 + Int(data[8]) + 256 * Int(data[9])
    guard data.count == start + count * size else { throw Failure("\(url.path) has not \(count) elements of \(size) bytes") }
    return data.subdata(in: start..<data.count)
}

func writeArray(_ array: MLMultiArray, to url: URL) throws {
    guard let element = elements.values.first(where: { $0.type == array.dataType }) else {
        throw Failure("arrays of type \(array.dataType.rawValue) are not written")
    }
    let shape = array.shape.map { $0.intValue }
    let strides = array.strides.map { $0.intValue }
    var bytes = Data(count: shape.reduce(1, *) * element.size)
    array.withUnsafeBytes { source in
        bytes.withUnsafeMutableBytes { target in
            guard let from = source.baseAddress, let to = target.baseAddress else { return }
            eachRun(shape: shape, strides: strides) { strided, packed, length in
                memcpy(to + packed * element.size, from + strided * element.size, length * element.size)
            }
        }
    }
    let sizes = shape.map { "\($0)," }.joined(separator: " ")
    var header = "{'descr': '\(element.descr)', 'fortran_order': False, 'shape': (\(sizes)), }"
    // The elements begin at a multiple of 64, behind a line break.
    while (10 + header.utf8.count + 1) % 64 != 0 {
        header += " "
    }
    header += "\n"
    let length = header.utf8.count
    var file = Data([0x93, 0x4E, 0x55, 0x4D, 0x50, 0x59, 1, 0, UInt8(length & 0xFF), UInt8(length >> 8)])
    file.append(Data(header.utf8))
    file.append(bytes)
    try file.write(to: url)
}

/// The probabilities of a classifier as an array, in the order of its classes.
func probabilities(_ told: [AnyHashable: NSNumber], of classes: [String]) throws -> MLMultiArray {
    let byText = Dictionary(told.map { ("\($0.key.base)", $0.value) }, uniquingKeysWith: { first, _ in first })
    let array = try MLMultiArray(shape: [NSNumber(value: classes.count)], dataType: .float32)
    for (place, label) in classes.enumerated() {
        guard let value = byText[label] else { throw Failure("there is no probability of class \(label)") }
        array[place] = value
    }
    return array
}

// MARK: - Inputs

func feature(_ input: Input, in folder: URL) throws -> MLFeatureValue {
    guard let element = elements[input.dtype] else { throw Failure("input \(input.name) is \(input.dtype)") }
    let count = input.shape.reduce(1, *)
    let data = try readElements(folder.appendingPathComponent(input.file), count: count, size: element.size)
    if let layout = input.image {
        return try MLFeatureValue(pixelBuffer: picture(input, layout, data))
    }
    let array = try MLMultiArray(shape: input.shape.map { NSNumber(value: $0) }, dataType: element.type)
    array.withUnsafeMutableBytes { target, strides in
        data.withUnsafeBytes { source in
            guard let from = source.baseAddress, let to = target.baseAddress else { return }
            eachRun(shape: input.shape, strides: strides) { strided, packed, length in
                memcpy(to + strided * element.size, from + packed * element.size, length * element.size)
            }
        }
    }
    return MLFeatureValue(multiArray: array)
}

/// The image whose channels are the planes of `[1, channels, height, width]`.
func picture(_ input: Input, _ layout: String, _ data: Data) throws -> CVPixelBuffer {
    let isHalf = layout == "gray16"
    let channels = layout == "rgb" || layout == "bgr" ? 3 : 1
    guard input.shape.count == 4, input.shape[1] == channels, input.dtype == (isHalf ? "f16" : "f32") else {
        throw Failure("image \(input.name) is \(input.dtype) of shape \(input.shape)")
    }
    let format: OSType
    if isHalf {
        format = kCVPixelFormatType_OneComponent16Half
    } else {
        format = channels == 3 ? kCVPixelFormatType_32BGRA : kCVPixelFormatType_OneComponent8
    }
    let (height, width) = (input.shape[2], input.shape[3])
    var made: CVPixelBuffer?
    CVPixelBufferCreate(kCFAllocatorDefault, width, height, format, nil, &made)
    guard let buffer = made, CVPixelBufferLockBaseAddress(buffer, []) == kCVReturnSuccess else {
        throw Failure("there is no room for image \(input.name)")
    }
    defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
    guard let base = CVPixelBufferGetBaseAddress(buffer) else { throw Failure("image \(input.name) has no memory") }
    let rowBytes = CVPixelBufferGetBytesPerRow(buffer)
    data.withUnsafeBytes { source in
        for y in 0..<height {
            let row = base + y * rowBytes
            if isHalf {
                memcpy(row, source.baseAddress! + y * width * 2, width * 2)
                continue
            }
            for x in 0..<width {
                for channel in 0..<channels {
                    let at = (channel * height + y) * width + x
                    let value = source.loadUnaligned(fromByteOffset: 4 * at, as: Float.self)
                    let byte = UInt8(max(0, min(255, value.isNaN ? 0 : value.rounded())))
                    // Memory has blue first.
                    let place = layout == "rgb" ? 2 - channel : channel
                    row.storeBytes(of: byte, toByteOffset: channels == 3 ? 4 * x + place : x, as: UInt8.self)
                }
                if channels == 3 {
                    row.storeBytes(of: 255, toByteOffset: 4 * x + 3, as: UInt8.self)
                }
            }
        }
    }
    return buffer
}

// MARK: - Runs

/// A model, with a state that is carried from call to call where it has one.
final class Runner {
    let model: MLModel
    var state: Any?

    init(_ url: URL, units: MLComputeUnits, function: String?, stateful: Bool) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        #if compiler(>=6.0)
        if #available(macOS 15.0, *) {
            if let function = function {
                configuration.functionName = function
            }
            model = try MLModel(contentsOf: url, configuration: configuration)
            if stateful {
                state = model.makeState()
            }
            return
        }
        #endif
        if stateful || function != nil {
            throw Failure("states and functions need macOS 15 and Swift 6")
        }
        model = try MLModel(contentsOf: url, configuration: configuration)
    }

    func predict(_ inputs: MLFeatureProvider) throws -> MLFeatureProvider {
        #if compiler(>=6.0)
        if #available(macOS 15.0, *), let state = state as? MLState {
            return try model.prediction(from: inputs, using: state)
        }
        #endif
        return try model.prediction(from: inputs)
    }
}

func run(_ bundle: Contents, units: MLComputeUnits, in folder: URL, to results: URL, report: inout Report) {
    for (number, package) in bundle.models.enumerated() {
        func failed(_ sample: Int, _ error: Error) {
            report.calls.append(Call(model: number, sample: sample, milliseconds: nil, error: "\(error)"))
            print("  \(package.path), sample \(sample): \(error)")
        }
        let runner: Runner
        var compiled: URL?
        // Core ML may read the compiled model as long as it runs.
        defer {
            if let compiled = compiled {
                try? FileManager.default.removeItem(at: compiled)
            }
        }
        do {
            let model = try MLModel.compileModel(at: folder.appendingPathComponent(package.path))
            compiled = model
            runner = try Runner(model, units: units, function: package.function, stateful: package.stateful)
        } catch {
            for sample in bundle.samples.indices { failed(sample, error) }
            continue
        }
        for (sample, given) in bundle.samples.enumerated() {
            do {
                var features: [String: MLFeatureValue] = [:]
                for input in given.inputs {
                    features[input.name] = try feature(input, in: folder)
                }
                let inputs = try MLDictionaryFeatureProvider(dictionary: features)
                let begun = Date()
                let outputs = try runner.predict(inputs)
                let milliseconds = 1000 * Date().timeIntervalSince(begun)
                let place = results.appendingPathComponent("\(number)").appendingPathComponent("\(sample)")
                try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
                for output in package.outputs {
                    let value = outputs.featureValue(for: output.name)
                    let file = place.appendingPathComponent(output.file)
                    // Labels and images are no arrays, and are not compared.
                    if let classes = output.classes, let told = value, told.type == .dictionary {
                        try writeArray(probabilities(told.dictionaryValue, of: classes), to: file)
                    } else if let array = value?.multiArrayValue {
                        try writeArray(array, to: file)
                    }
                }
                report.calls.append(Call(model: number, sample: sample, milliseconds: milliseconds, error: nil))
            } catch {
                failed(sample, error)
            }
        }
    }
}

func systemText(_ name: String) -> String {
    var size = 0
    guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "" }
    var bytes = [CChar](repeating: 0, count: size)
    guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return "" }
    return String(cString: bytes)
}

func runAll() throws {
    let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    let all: [(String, MLComputeUnits)] = [
        ("cpuOnly", .cpuOnly), ("cpuAndGPU", .cpuAndGPU), ("cpuAndNeuralEngine", .cpuAndNeuralEngine), ("all", .all),
    ]
    let asked = CommandLine.arguments.dropFirst()
    if let unknown = asked.first(where: { name in !all.contains { $0.0 == name } }) {
        throw Failure("there are no compute units \(unknown): wanted some of \(all.map { $0.0 }.joined(separator: ", "))")
    }
    let data = try Data(contentsOf: folder.appendingPathComponent("bundle.json"))
    let bundle = try JSONDecoder().decode(Contents.self, from: data)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    for (name, units) in all where asked.isEmpty || asked.contains(name) {
        print(name)
        let results = folder.appendingPathComponent("results").appendingPathComponent(name)
        try? FileManager.default.removeItem(at: results)
        try FileManager.default.createDirectory(at: results, withIntermediateDirectories: true)
        var report = Report(
            units: name, packages: bundle.models.map { $0.sha256 }, device: systemText("hw.model"), processor: systemText("machdep.cpu.brand_string"),
            system: ProcessInfo.processInfo.operatingSystemVersionString)
        run(bundle, units: units, in: folder, to: results, report: &report)
        try encoder.encode(report).write(to: results.appendingPathComponent("run.json"))
    }
}

do {
    try runAll()
} catch {
    FileHandle.standardError.write(Data("\(error)\n".utf8))
    exit(1)
}
