import Checkpoints
import Models
import Tensors
import WeightFile

/// Streams one matrix into the file, a panel at a time.
struct MatrixWriter {
  let name: String
  let shape: MatrixShape
  let form: CodeForm
  /// Whether all taps of a convolution have the same steps.
  let sharesSteps: Bool
  let source: SourceMatrix
  let writer: WeightFileWriter

  func write(_ type: TensorType, _ error: inout QuantisationError) throws(ConvertError) {
    try writing { () throws(WeightFileError) in try writer.beginTensor(name + ".weight") }
    switch type {
    case .i8: try writeInt8(&error)
    case .f16: try writeFloat { values throws(ConvertError) in try halves(values, of: source.tensor) }
    default: try writeFloat { $0 }
    }
  }

  private func writeInt8(_ error: inout QuantisationError) throws(ConvertError) {
    let tapScale =
      sharesSteps ? Array(repeating: 1, count: shape.taps) : Self.tapScale(of: source, shape)
    var packer = PanelPacker(shape, form, tapScale: tapScale)
    var scales = [Float](repeating: 0, count: shape.paddedOutputs)
    var sums = [Int32](repeating: 0, count: shape.taps * shape.paddedOutputs)
    for panel in 0..<shape.panels {
      var packed = [Int8](repeating: 0, count: shape.taps * shape.paddedInputs * MatrixShape.panel)
      guard packer.int8(panel, of: source, into: &packed, scales: &scales, sums: &sums, &error) else {
        throw .notFinite(file: source.tensor.path, tensor: source.tensor.name)
      }
      try append(packed, to: writer)
      releasePages(after: panel)
    }
    try writing { () throws(WeightFileError) in try writer.endTensor() }
    try append(scales, as: name + ".scale", to: writer)
    try append(sums, as: name + ".sum", to: writer)
    if shape.taps > 1 { try append(tapScale, as: name + ".tap_scale", to: writer) }
  }

  /// Of a convolution; 1 for a linear layer.
  static func tapScale(of source: SourceMatrix, _ shape: MatrixShape) -> [Float] {
    guard shape.taps > 1 else { return [1] }
    var packer = PanelPacker(shape)
    return packer.tapScales(of: source, samples: 64)
  }

  private func writeFloat<Element>(_ convert: ([Float]) throws(ConvertError) -> [Element]) throws(ConvertError) {
    var packer = PanelPacker(shape)
    for panel in 0..<shape.panels {
      var packed = [Float](repeating: 0, count: shape.taps * shape.inputs * MatrixShape.panel)
      guard packer.float(panel, of: source, into: &packed) else {
        throw .notFinite(file: source.tensor.path, tensor: source.tensor.name)
      }
      try append(convert(packed), to: writer)
      releasePages(after: panel)
    }
    try writing { () throws(WeightFileError) in try writer.endTensor() }
  }

  /// Gives the source's pages back now and then, so that memory does not grow with the largest matrix.
  private func releasePages(after panel: Int) {
    let elements = 4 << 20
    let step = max(1, elements / (MatrixShape.panel * source.rowLength))
    if panel % step == step - 1 { source.tensor.releasePages() }
  }
}

/// Streams an embedding table into the file, a row at a time.
struct TableWriter {
  let name: String
  let rows: Int
  let source: SourceMatrix
  let writer: WeightFileWriter

  func write(_ type: TensorType, _ error: inout QuantisationError) throws(ConvertError) {
    try writing { () throws(WeightFileError) in try writer.beginTensor(name + ".weight") }
    var row = [Float](repeating: 0, count: source.rowLength)
    var codes = [Int8](repeating: 0, count: source.rowLength)
    var scales = [Float](repeating: 0, count: rows)
    for index in 0..<rows {
      row.withUnsafeMutableBufferPointer { if let base = $0.baseAddress { source.read(index, into: base) } }
      guard row.allSatisfy(\.isFinite) else {
        throw .notFinite(file: source.tensor.path, tensor: source.tensor.name)
      }
      switch type {
      case .i8:
        scales[index] =
          row.withUnsafeBufferPointer { row in
            codes.withUnsafeMutableBufferPointer { Quantiser.quantise(row, into: $0, as: .full, &error) }
          } ?? 0
        try append(codes, to: writer)
      case .f16: try append(halves(row, of: source.tensor), to: writer)
      default: try append(row, to: writer)
      }
      // A vocabulary's table is the largest tensor: give its pages back on the way.
      if index % 4096 == 4095 { source.tensor.releasePages() }
    }
    try writing { () throws(WeightFileError) in try writer.endTensor() }
    if type == .i8 { try append(scales, as: name + ".scale", to: writer) }
  }
}

/// The values as IEEE binary16, which has to hold them.
private func halves(_ values: [Float], of tensor: SourceTensor) throws(ConvertError) -> [UInt16] {
  let halves = values.map { Float16($0) }
  guard halves.allSatisfy(\.isFinite) else { throw .tooLarge(file: tensor.path, tensor: tensor.name) }
  return halves.map(\.bitPattern)
}
