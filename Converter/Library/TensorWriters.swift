import Checkpoints
import Models
import Tensors
import WeightFile

/// Streams one matrix into the file, a panel at a time.
struct MatrixWriter {
  let name: String
  let shape: MatrixShape
  let source: SourceMatrix
  let writer: WeightFileWriter

  func write(_ type: TensorType, _ error: inout QuantisationError) throws(ConvertError) {
    try writing { () throws(WeightFileError) in try writer.beginTensor(name + ".weight") }
    switch type {
    case .i8: try writeInt8(&error)
    case .f16: try writeFloat { $0.map { Float16($0).bitPattern } }
    default: try writeFloat { $0 }
    }
  }

  private func writeInt8(_ error: inout QuantisationError) throws(ConvertError) {
    var packer = PanelPacker(shape)
    var scales = [Float](repeating: 0, count: shape.paddedOutputs)
    var sums = [Int32](repeating: 0, count: shape.taps * shape.paddedOutputs)
    for panel in 0..<shape.panels {
      var packed = [Int8](repeating: 0, count: shape.taps * shape.paddedInputs * MatrixShape.panel)
      guard packer.int8(panel, of: source, into: &packed, scales: &scales, sums: &sums, &error) else {
        throw .notFinite(file: source.tensor.path, tensor: source.tensor.name)
      }
      try append(packed, to: writer)
    }
    try writing { () throws(WeightFileError) in try writer.endTensor() }
    try append(scales, as: name + ".scale", to: writer)
    try append(sums, as: name + ".sum", to: writer)
  }

  private func writeFloat<Element>(_ convert: ([Float]) -> [Element]) throws(ConvertError) {
    var packer = PanelPacker(shape)
    for panel in 0..<shape.panels {
      var packed = [Float](repeating: 0, count: shape.taps * shape.inputs * MatrixShape.panel)
      guard packer.float(panel, of: source, into: &packed) else {
        throw .notFinite(file: source.tensor.path, tensor: source.tensor.name)
      }
      try append(convert(packed), to: writer)
    }
    try writing { () throws(WeightFileError) in try writer.endTensor() }
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
      let scale = row.withUnsafeBufferPointer { row in
        codes.withUnsafeMutableBufferPointer { Quantiser.quantise(row, into: $0, &error) }
      }
      guard let scale else { throw .notFinite(file: source.tensor.path, tensor: source.tensor.name) }
      scales[index] = scale
      switch type {
      case .i8: try append(codes, to: writer)
      case .f16: try append(row.map { Float16($0).bitPattern }, to: writer)
      default: try append(row, to: writer)
      }
      // A vocabulary's table is the largest tensor: give its pages back on the way.
      if index % 4096 == 4095 { source.tensor.releasePages() }
    }
    try writing { () throws(WeightFileError) in try writer.endTensor() }
    if type == .i8 { try append(scales, as: name + ".scale", to: writer) }
  }
}
