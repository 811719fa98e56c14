import AudioToken
import Converter
import Foundation
import RandomCheckpoint
import Testing
import WeightFile

/// The committed stages of the float32 PyTorch reference; `Converter/reference/make_goldens.py` makes them.
struct Goldens: Decodable {
  let sound: String
  let cases: [String: Case]

  struct Case: Decodable {
    let layout: String
    let settings: Settings
    let stages: [String: Stage]
  }
  struct Settings: Decodable {
    let prompt: String
    let steps: Int
    let guidance: Float
    let seed: UInt64
    let sampler: String
    let width: Int
    let height: Int
    let lora: Bool
  }
  /// Every `stride`-th row of the stage is kept.
  struct Stage: Decodable {
    let file: String
    let stride: Int
  }

  static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Fixtures")
  static let all: Goldens = {
    do {
      let data = try Data(contentsOf: fixtures.appendingPathComponent("goldens/goldens.json"))
      return try JSONDecoder().decode(Goldens.self, from: data)
    } catch {
      Issue.record("the goldens cannot be read: \(error)")
      return Goldens(sound: "", cases: [:])
    }
  }()
}

/// An array of an `.npy` file, as doubles.
struct NumpyArray {
  let shape: [Int]
  let values: [Double]

  init(_ url: URL) throws {
    let data = [UInt8](try Data(contentsOf: url))
    let length = Int(data[8]) + 256 * Int(data[9])
    let header = String(decoding: data[10..<10 + length], as: UTF8.self)
    let shapeText = try #require(header.firstRange(of: "'shape': (")).upperBound
    shape = header[shapeText...].prefix { $0 != ")" }.split(separator: ",").compactMap {
      Int($0.trimmingCharacters(in: .whitespaces))
    }
    let body = data[(10 + length)...]
    values =
      if header.contains("<f4") {
        Self.read(body, Float.self).map(Double.init)
      } else if header.contains("<i8") {
        Self.read(body, Int64.self).map(Double.init)
      } else {
        body.map(Double.init)
      }
  }

  private static func read<Element>(_ bytes: ArraySlice<UInt8>, _: Element.Type) -> [Element] {
    bytes.withUnsafeBytes { raw in
      (0..<raw.count / MemoryLayout<Element>.stride).map {
        raw.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Element>.stride, as: Element.self)
      }
    }
  }

  /// Every `stride`-th slice of the first dimension.
  func strided(_ stride: Int) -> [Double] {
    guard stride > 1, let rows = shape.first else { return values }
    let width = values.count / rows
    return Swift.stride(from: 0, to: rows, by: stride).flatMap { values[$0 * width..<($0 + 1) * width] }
  }
}

/// How far `found` is from `expected`. Any value that is no number fails whatever the limit.
struct Distance {
  let greatest: Double
  let relative: Double
  let psnr: Double

  enum Mismatch: Error, Equatable {
    case count(found: Int, expected: Int)
    case notFinite(index: Int)
  }

  init(_ found: [Double], _ expected: [Double], peak: Double = 1) throws {
    guard found.count == expected.count else { throw Mismatch.count(found: found.count, expected: expected.count) }
    if let index = found.firstIndex(where: { !$0.isFinite }) { throw Mismatch.notFinite(index: index) }
    var (greatest, difference, energy) = (0.0, 0.0, 0.0)
    for (a, b) in zip(found, expected) {
      greatest = max(greatest, abs(a - b))
      difference += (a - b) * (a - b)
      energy += b * b
    }
    self.greatest = greatest
    relative = (difference / max(energy, 1e-300)).squareRoot()
    psnr = difference == 0 ? .infinity : 10 * log10(peak * peak * Double(found.count) / difference)
  }
}

/// Models that were converted once for all tests of a run, in a folder that goes with the process.
final class ConvertedModels: @unchecked Sendable {
  static let shared = ConvertedModels()
  private let lock = NSLock()
  private var made: Set<String> = []
  private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("audiotoken-pipeline-\(getpid())")

  deinit { try? FileManager.default.removeItem(at: folder) }

  func model(
    _ layout: String, weights: WeightType, lora: Bool = false, spelling: Spelling = .hub
  ) throws -> String {
    lock.lock()
    defer { lock.unlock() }
    let source = folder.appendingPathComponent("\(layout)-\(spelling.rawValue)").path
    if made.insert(source).inserted {
      try RandomCheckpoint(layout: Goldens.fixtures.appendingPathComponent("layouts/\(layout).json").path)
        .write(to: source, spelling: spelling)
    }
    let output = "\(source)-\(weights.rawValue)\(lora ? "-lora" : "").gguf"
    if made.insert(output).inserted {
      let job = ConversionJob(
        stableDiffusion: source + "/sd", beats: source + "/beats.pt", embedder: source + "/embedder.bin",
        lora: lora ? source + "/lora.bin" : nil, weights: weights, output: output)
      _ = try ModelConverter(job).run { _ in }
    }
    return output
  }

  func dumpFolder(_ name: String) throws -> URL {
    let url = folder.appendingPathComponent("dump-\(name)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    return url
  }
}
