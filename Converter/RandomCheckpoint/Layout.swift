import Foundation

/// Everything about a checkpoint set but its weights, which are hashes of their names. `layouts.py` beside the PyTorch
/// reference defines the JSON.
struct Layout: Decodable {
  static let format = "audiotoken-random-checkpoint 1"

  let format: String
  let name: String
  let files: [File]

  struct File: Decodable {
    enum Kind: String, Decodable { case text, vocabulary, merges, safetensors, torch }

    /// Relative to the checkpoint's folder.
    let path: String
    let kind: Kind
    let text: String?
    /// Of the whole file, in the hub spelling.
    let crc32: UInt32?
    let tensors: [Tensor]?
    /// Names that newer writers use; null where they omit the tensor.
    let newNames: [String: String?]?
    let ordered: Bool?
    let cfg: [Setting]?
  }

  struct Tensor: Decodable {
    let name: String
    let shape: [Int]
    let mean: Double?
    let bound: Double?
    /// The tensor of the same file whose values it has.
    let tie: String?
    /// Of the little-endian elements.
    let crc32: UInt32

    /// Without a range the elements are 64-bit integers that count from 0.
    var isInteger: Bool { bound == nil }
    var elementBytes: Int { isInteger ? 8 : 4 }
  }

  struct Setting: Decodable {
    let key: String
    let int: Int?
    let float: Double?
    let bool: Bool?
    let string: String?
  }

  init(path: String) throws(RandomCheckpointError) {
    let layout: Layout
    do {
      layout = try JSONDecoder().decode(Layout.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
    } catch let error as DecodingError {
      throw .layout(file: path, reason: Layout.reason(error))
    } catch {
      throw .unreadable(file: path, reason: error.localizedDescription)
    }
    guard layout.format == Layout.format else {
      throw .layout(file: path, reason: "its format is \"\(layout.format)\", expected \"\(Layout.format)\"")
    }
    for file in layout.files {
      if let reason = file.fault { throw .layout(file: path, reason: "\(file.path) \(reason)") }
    }
    self = layout
  }

  private static func reason(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, let context): "\(place(context)) lacks \(key.stringValue)"
    case .typeMismatch(_, let context), .valueNotFound(_, let context): "\(place(context)) has the wrong type"
    case .dataCorrupted(let context): "\(place(context)) is malformed"
    @unknown default: "it is malformed"
    }
  }

  private static func place(_ context: DecodingError.Context) -> String {
    let path = context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
    return path.isEmpty ? "the text" : path
  }
}

extension Layout.File {
  /// Zip archives without the 64-bit extension end here; tests need far less.
  private static let largestSize = 1 << 31
  private static let mostTensors = 60_000

  /// What is wrong with this entry, or nil.
  fileprivate var fault: String? {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    if parts.contains(where: { ["", ".", ".."].contains($0) || $0.utf8.count > 255 }) || path.utf8.contains(0) {
      return "is no path inside the checkpoint's folder"
    }
    switch kind {
    case .text: return text == nil ? "has no text" : nil
    case .vocabulary, .merges: return crc32 == nil ? "has no CRC-32" : nil
    case .safetensors, .torch: return tensorFault
    }
  }

  private var tensorFault: String? {
    guard let tensors else { return "has no tensors" }
    if tensors.count > Self.mostTensors { return "has \(tensors.count) tensors, more than \(Self.mostTensors)" }
    var total = 0
    for tensor in tensors {
      guard let bytes = tensor.byteCount, bytes <= Self.largestSize - total else {
        return "has a tensor \(tensor.name) of shape \(tensor.shape), which does not fit into a file of 2 GiB"
      }
      if (tensor.mean == nil) != (tensor.bound == nil) { return "has a tensor \(tensor.name) with half a range" }
      total += bytes
    }
    if Set(tensors.map(\.name)).count != tensors.count { return "names a tensor twice" }
    if let setting = cfg?.first(where: { $0.value == nil }) { return "has a setting \(setting.key) without a value" }
    return nil
  }
}

extension Layout.Tensor {
  /// Elements, or nil when a size is not positive or the product overflows.
  var count: Int? {
    var count = 1
    for size in shape {
      let (product, overflow) = count.multipliedReportingOverflow(by: size)
      guard size > 0, !overflow else { return nil }
      count = product
    }
    return count
  }

  var byteCount: Int? {
    guard let (bytes, overflow) = count?.multipliedReportingOverflow(by: elementBytes), !overflow else { return nil }
    return bytes
  }
}

extension Layout.Setting {
  var value: PickleWriter.Scalar? {
    if let int { return Int32(exactly: int).map { .int($0) } }
    if let float { return .float(float) }
    if let bool { return .bool(bool) }
    return string.map { .string($0) }
  }
}
