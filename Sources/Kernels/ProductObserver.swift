import CKernels
import Tensors

/// Compares quantised products with those of the floats that were quantised: of both weights and inputs.
///
/// Called on the thread that runs the network.
package protocol ProductObserver: AnyObject {
  /// What `weights` were quantised from, as floats; nil where its products are not to be compared.
  func original(of weights: PackedMatrix) -> PackedMatrix?
  /// Sums of squares over some of the elements of a product: of the exact one, and of what quantisation changed.
  func note(_ weights: PackedMatrix, signal: Double, noise: Double)
}

extension Run {
  /// Rows that are compared together.
  private static var observedRun: Int { 16 }
  /// How many times so many rows are compared of one product; they are spread evenly.
  private static var observedRuns: Int { 8 }

  /// Computes some rows of a product once more, and from floats, for an observer. Without one it costs nothing. Of a
  /// convolution in tiles, tap by tap: what coding the transformed inputs adds is not counted.
  /// - Parameter rows: of the product.
  func observe(_ x: Activations, by weights: PackedMatrix, through window: Window, rows: Int) {
    guard let observer, !isPlanning, case .quantized(let input) = x, let origin = input.origin,
      let original = observer.original(of: weights)
    else { return }
    precondition(original.shape == weights.shape)
    let zeros = [Float](repeating: 0, count: weights.shape.inputs)
    zeros.withUnsafeBytes { zeros in
      guard let zeros = zeros.baseAddress else { return }
      let found = BlockProduct(
        x: x, weights: weights, window: window, rows: rows, bias: nil, padding: UnsafeRawPointer(input.values),
        kernels: kernels)
      let exact = BlockProduct(
        x: .float(origin.matrix), weights: original, window: window, rows: rows, bias: nil, padding: zeros,
        kernels: kernels)
      let ranges = Self.sample(found.blockedRows)
      var energies = [(signal: Double, noise: Double)](repeating: (0, 0), count: ranges.count)
      energies.withUnsafeMutableBufferPointer { energies in
        // Sound: each piece of work writes its own element.
        nonisolated(unsafe) let energies = energies
        pool.parallel(ranges.count, grain: 1) { pieces in
          for piece in pieces { energies[piece] = found.compare(with: exact, ranges[piece]) }
        }
      }
      observer.note(
        weights, signal: energies.reduce(0) { $0 + $1.signal }, noise: energies.reduce(0) { $0 + $1.noise })
    }
  }

  private static func sample(_ rows: Int) -> [Range<Int>] {
    if rows <= observedRun * observedRuns {
      return stride(from: 0, to: rows, by: observedRun).map { $0..<min($0 + observedRun, rows) }
    }
    return (0..<observedRuns).map { index in
      let first = index * (rows - observedRun) / (observedRuns - 1)
      return first..<first + observedRun
    }
  }
}

extension BlockProduct {
  /// Sums of squares of the rows `range`, and of those paired with them: of `exact`, which is the same product of floats,
  /// and of the difference to it.
  fileprivate func compare(with exact: BlockProduct, _ range: Range<Int>) -> (signal: Double, noise: Double) {
    let columns = weights.shape.outputs
    let ways = isPaired ? 2 : 1
    let half = range.count * columns
    return withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * ways * half) { memory in
      guard let found = memory.baseAddress else { return (0, 0) }
      let expected = found + ways * half
      for group in 0..<weights.shape.groups {
        let tile = Tile(group: group, panels: 0..<weights.shape.panelsPerGroup)
        compute(range, tile, into: .plain(found, pairs: isPaired ? found + half : nil))
        for way in 0..<ways {
          let first = range.lowerBound + way * blockedRows
          exact.compute(first..<first + range.count, tile, into: .plain(expected + way * half, pairs: nil))
        }
      }
      var (signal, noise) = (0.0, 0.0)
      for index in 0..<ways * half {
        let value = Double(expected[index])
        let difference = Double(found[index]) - value
        signal += value * value
        noise += difference * difference
      }
      return (signal, noise)
    }
  }
}

extension BlockProduct.Destination {
  fileprivate static func plain(_ out: UnsafeMutablePointer<Float>, pairs: UnsafeMutablePointer<Float>?) -> Self {
    let pairs = pairs.map { UnsafeMutableRawPointer($0) }
    return Self(storage: .float32, out: out, pairs: pairs, residual: nil, pairResidual: nil)
  }
}
