import Tensors
import WeightFile

/// The tensors of a weight file, where they are mapped: nothing is copied.
///
/// Sound because the file's reader has checked that every tensor's bytes lie inside the map, this source checks type and
/// dimensions before it hands out a pointer, and `file` keeps the map alive as long as its owner keeps this source.
package struct MappedWeights: WeightSource {
  package let file: WeightFile

  /// What codes of one sign add up to at most, in files that promise it for their pairs and for fours (`CodeForm`).
  package static let pairLimitKey = "audiotoken.weights.pair_limit"
  package static let fourLimitKey = "audiotoken.weights.four_limit"
  private let form: CodeForm
  /// What files say under `Format.Key.convolutions` whose 3x3 convolutions are to be computed by Winograd's algorithm.
  package static let winograd = "winograd"
  private let convolutions: MetadataValue?

  package init(_ file: WeightFile) {
    self.file = file
    let kept = [(Self.fourLimitKey, CodeForm.fours), (Self.pairLimitKey, .pairs)]
    convolutions = file.metadata[Format.Key.convolutions]
    form = kept.first { file.metadata[$0.0] == .uint32(128) }?.1 ?? .full
  }

  package func matrix(
    _ name: String, _ shape: MatrixShape, _ precision: Precision, bias: Bool
  ) throws(WeightError) -> PackedMatrix {
    let tensor = try find(name + ".weight")
    guard convolutions == nil || convolutions == .string(Self.winograd) else {
      throw .convolutions(file: file.path, expected: Self.winograd)
    }
    let isTransformed = convolutions != nil && precision == .transformed && tensor.type == .i8
    let elements: PackedMatrix.Elements
    switch tensor.type {
    case .i8 where precision != .kept:
      elements = .int8(
        try pointer(tensor, shape.packedDimensions(.i8), Int8.self),
        scale: try pointer(find(name + ".scale"), .f32, [shape.paddedOutputs], Float.self),
        sum: try pointer(find(name + ".sum"), .i32, [shape.taps, shape.paddedOutputs], Int32.self),
        isTransformed ? .full : form)
    case .f16 where precision != .kept:
      elements = .float16(try pointer(tensor, shape.packedDimensions(.f16), UInt16.self))
    case .f32:
      elements = .float32(try pointer(tensor, shape.packedDimensions(.f32), Float.self))
    default:
      let expected = precision == .kept ? "float32" : "int8, float16 or float32"
      throw .type(file: file.path, tensor: tensor.name, expected: expected, found: "\(tensor.type)")
    }
    let biases = bias ? try pointer(find(name + ".bias"), .f32, [shape.paddedOutputs], Float.self) : nil
    var tapScale: UnsafePointer<Float>?
    if case .int8 = elements, shape.taps > 1 {
      tapScale = try pointer(find(name + ".tap_scale"), .f32, [shape.taps], Float.self)
    }
    return PackedMatrix(
      elements: elements, shape: shape, bias: biases, tapScale: tapScale, isTransformed: isTransformed)
  }

  package func vector(_ name: String, _ dimensions: [Int]) throws(WeightError) -> UnsafePointer<Float> {
    try pointer(find(name), .f32, dimensions, Float.self)
  }

  package func table(_ name: String, rows: Int, columns: Int) throws(WeightError) -> EmbeddingTable {
    let tensor = try find(name + ".weight")
    let elements: EmbeddingTable.Elements
    switch tensor.type {
    case .i8:
      elements = .int8(
        try pointer(tensor, [rows, columns], Int8.self),
        scale: try pointer(find(name + ".scale"), .f32, [rows], Float.self))
    case .f16: elements = .float16(try pointer(tensor, [rows, columns], UInt16.self))
    case .f32: elements = .float32(try pointer(tensor, [rows, columns], Float.self))
    case .i32:
      throw .type(file: file.path, tensor: tensor.name, expected: "int8, float16 or float32", found: "\(tensor.type)")
    }
    return EmbeddingTable(elements: elements, rows: rows, columns: columns)
  }

  private func find(_ name: String) throws(WeightError) -> TensorInfo {
    guard let tensor = file[name] else { throw .missing(file: file.path, tensor: name) }
    return tensor
  }

  private func pointer<Element>(
    _ tensor: TensorInfo, _ type: TensorType, _ dimensions: [Int], _: Element.Type
  ) throws(WeightError) -> UnsafePointer<Element> {
    guard tensor.type == type else {
      throw .type(file: file.path, tensor: tensor.name, expected: "\(type)", found: "\(tensor.type)")
    }
    return try pointer(tensor, dimensions, Element.self)
  }

  private func pointer<Element>(
    _ tensor: TensorInfo, _ dimensions: [Int], _: Element.Type
  ) throws(WeightError) -> UnsafePointer<Element> {
    guard tensor.dimensions == dimensions else {
      throw .shape(file: file.path, tensor: tensor.name, expected: dimensions, found: tensor.dimensions)
    }
    return file.bytes(of: tensor).assumingMemoryBound(to: Element.self)
  }
}

extension MatrixShape {
  /// The dimensions of `name.weight` in the file, slowest first.
  package func packedDimensions(_ type: TensorType) -> [Int] {
    type == .i8
      ? [panels, taps * paddedInputs / Self.quad, Self.panel, Self.quad] : [panels, taps * inputs, Self.panel]
  }
}

/// All networks of a file.
package struct Networks {
  package let beats: BEATs
  package let projector: TokenProjector
  package let text: CLIPText
  package let unet: UNet
  package let vae: VAEDecoder

  /// Asks `source` for the tensors in the order in which a picture reads them.
  package init(_ source: any WeightSource, _ configuration: ModelConfiguration) throws(WeightError) {
    beats = try BEATs(Weights(source, Stage.beats.rawValue), configuration.beats)
    projector = try TokenProjector(Weights(source, Stage.projector.rawValue), configuration.projector)
    text = try CLIPText(Weights(source, Stage.text.rawValue), configuration.text)
    unet = try UNet(Weights(source, Stage.unet.rawValue), configuration.unet)
    vae = try VAEDecoder(Weights(source, Stage.vae.rawValue), configuration.vae)
  }
}

/// The first component of a tensor's name.
package enum Stage: String, CaseIterable, Sendable {
  case beats
  case projector
  case text
  case unet
  case vae
}
