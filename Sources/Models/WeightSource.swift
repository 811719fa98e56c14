import Tensors
import WeightFile

/// Whether a matrix follows the file's weight type or stays f32 whatever that is.
package enum Precision: Hashable, Sendable {
  case quantized
  /// Quantised, and where that is to int8, in the same steps for all taps of a convolution, which is to be computed by
  /// Winograd's algorithm.
  case transformed
  case kept
}

/// Hands out tensors by name and checks their shapes. A network's initialiser asks it for everything that the network
/// reads, in the order of execution, so the same initialiser is also the manifest that the converter writes by.
package protocol WeightSource {
  /// `name.weight` and, with `bias`, `name.bias`.
  func matrix(_ name: String, _ shape: MatrixShape, _ precision: Precision, bias: Bool) throws(WeightError)
    -> PackedMatrix
  /// f32 [dimensions...], always kept.
  func vector(_ name: String, _ dimensions: [Int]) throws(WeightError) -> UnsafePointer<Float>
  /// `name.weight`: rows that are looked up.
  func table(_ name: String, rows: Int, columns: Int) throws(WeightError) -> EmbeddingTable
}

/// What is wrong with the tensors of a file.
package enum WeightError: Error, Equatable, CustomStringConvertible {
  case missing(file: String, tensor: String)
  case shape(file: String, tensor: String, expected: [Int], found: [Int])
  case type(file: String, tensor: String, expected: String, found: String)
  case codes(file: String, tensor: String)
  case convolutions(file: String, expected: String)

  package var description: String {
    switch self {
    case .missing(let file, let tensor):
      "\(file) has no tensor \(tensor), which its settings call for; convert the model again."
    case .shape(let file, let tensor, let expected, let found):
      "\(file): tensor \(tensor) has shape \(found), expected \(expected); convert the model again."
    case .type(let file, let tensor, let expected, let found):
      "\(file): tensor \(tensor) is \(found), expected \(expected); convert the model again."
    case .codes(let file, let tensor):
      "\(file): the codes of tensor \(tensor) have other sums, larger neighbours or other steps than the file promises, so that "
        + "other numbers than the model's would be computed; convert the model again."
    case .convolutions(let file, let expected):
      "\(file) asks for convolutions that this program does not know, where it knows \"\(expected)\"; "
        + "update this program or convert the model again."
    }
  }
}

/// A place in the tree of names: `weights / "down_blocks" / 0 / "conv1"`.
package struct Weights {
  package let source: any WeightSource
  package let path: String

  package init(_ source: any WeightSource, _ path: String) {
    self.source = source
    self.path = path
  }

  package static func / (parent: Weights, component: String) -> Weights {
    Weights(parent.source, parent.path + "." + component)
  }
  package static func / (parent: Weights, index: Int) -> Weights { parent / String(index) }

  package func vector(_ dimensions: Int...) throws(WeightError) -> UnsafePointer<Float> {
    try source.vector(path, dimensions)
  }
  package func matrix(
    _ shape: MatrixShape, _ precision: Precision = .quantized, bias: Bool = true
  ) throws(WeightError) -> PackedMatrix {
    try source.matrix(path, shape, precision, bias: bias)
  }
  package func table(rows: Int, columns: Int) throws(WeightError) -> EmbeddingTable {
    try source.table(path, rows: rows, columns: columns)
  }
}
