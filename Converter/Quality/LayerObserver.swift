import Kernels
import Models
import Tensors
import WeightFile

/// What quantisation does to the output of one layer.
package struct LayerError: Sendable {
  package let name: String
  package let shape: MatrixShape
  /// Sums of squares of the exact output and of the error.
  package fileprivate(set) var signal = 0.0
  package fileprivate(set) var noise = 0.0

  /// |quantised - exact| / |exact|
  package var relative: Double { noise == 0 ? 0 : (noise / signal).squareRoot() }
}

/// Adds up the errors of the products of a quantised file, layer by layer, each on the input that the quantised model gives
/// it: what a layer does itself, without what comes in.
final class LayerObserver: ProductObserver {
  private let file: WeightFile
  private let originals: MappedWeights
  /// Quantised matrices by where they are in the file.
  private let names: [Int: String]
  private var matrices: [Int: PackedMatrix?] = [:]
  private var errors: [Int: LayerError] = [:]

  init(_ file: WeightFile, original: WeightFile) {
    self.file = file
    originals = MappedWeights(original)
    let matrices = file.tensors.filter { $0.type == .i8 && $0.name.hasSuffix(".weight") }
    names = Dictionary(uniqueKeysWithValues: matrices.map { ($0.offset, String($0.name.dropLast(7))) })
  }

  func original(of weights: PackedMatrix) -> PackedMatrix? {
    guard let offset = offset(of: weights) else { return nil }
    if let known = matrices[offset] { return known }
    var matrix: PackedMatrix?
    if let name = names[offset] {
      // Both files were checked when they were opened.
      matrix = try? originals.matrix(name, weights.shape, .quantized, bias: false)
      if case .int8 = matrix?.elements { matrix = nil }
    }
    matrices[offset] = .some(matrix)
    return matrix
  }

  func note(_ weights: PackedMatrix, signal: Double, noise: Double) {
    guard let offset = offset(of: weights), let name = names[offset] else { return }
    var error = errors[offset] ?? LayerError(name: name, shape: weights.shape)
    error.signal += signal
    error.noise += noise
    errors[offset] = error
  }

  private func offset(of weights: PackedMatrix) -> Int? {
    guard case .int8(let values, _, _, _) = weights.elements else { return nil }
    return file.offset(of: UnsafeRawPointer(values))
  }

  /// In the order of execution.
  var layers: [LayerError] { errors.sorted { $0.key < $1.key }.map(\.value) }
}
