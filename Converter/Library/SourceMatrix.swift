import Checkpoints

/// The rows of a weight matrix, made on demand from a checkpoint's tensors, so that no tensor is ever held whole.
/// Row o is the source's [inputs, taps] for output o, taps fastest.
struct SourceMatrix {
  let tensor: SourceTensor
  /// Torch's magnitudes of a normalised weight, beside its directions.
  let magnitude: SourceTensor?
  let rowLength: Int
  private let adjust: ((Int, UnsafeMutablePointer<Float>) -> Void)?
  /// Makes the row from one of the tensor's, which is `sourceRowLength` long.
  private var fold: ((UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> Void)?
  private var sourceRowLength = 0

  /// The tensor as it is.
  init(_ tensor: SourceTensor, rowLength: Int) {
    self.init(tensor, rowLength: rowLength, adjust: nil)
  }

  private init(
    _ tensor: SourceTensor, magnitude: SourceTensor? = nil, rowLength: Int,
    adjust: ((Int, UnsafeMutablePointer<Float>) -> Void)?
  ) {
    self.tensor = tensor
    self.magnitude = magnitude
    self.rowLength = rowLength
    self.adjust = adjust
  }

  /// W + up down, with up [outputs, rank] and down [rank, inputs].
  init(_ tensor: SourceTensor, rowLength: Int, up: SourceTensor, down: SourceTensor) {
    let rank = down.count / rowLength
    let downs = down.floats()
    let ups = up.floats()
    self.init(tensor, rowLength: rowLength) { row, values in
      for r in 0..<rank {
        let factor = ups[row * rank + r]
        for i in 0..<rowLength { values[i] += factor * downs[r * rowLength + i] }
      }
    }
  }

  /// torch weight_norm over the last dimension: W[..., k] = g[k] v[..., k] / |v[..., k]|.
  init(direction: SourceTensor, magnitude: SourceTensor, rowLength: Int) {
    let taps = magnitude.count
    let outputs = direction.count / rowLength
    var squares = [Double](repeating: 0, count: taps)
    var row = [Float](repeating: 0, count: rowLength)
    for o in 0..<outputs {
      row.withUnsafeMutableBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return }
        direction.readFloats(o * rowLength..<(o + 1) * rowLength, into: base)
        for i in 0..<rowLength { squares[i % taps] += Double(base[i]) * Double(base[i]) }
      }
    }
    let scales = zip(magnitude.floats(), squares).map { Float(Double($0) / $1.squareRoot()) }
    self.init(direction, magnitude: magnitude, rowLength: rowLength) { _, values in
      for i in 0..<rowLength { values[i] *= scales[i % taps] }
    }
  }

  /// What a 3x3 kernel [inputs, 3, 3] is to the pixels of a picture before it is enlarged by two, [inputs, 2, 2], at place
  /// `phase` within an enlarged pixel: the sums of the weights that fall on each.
  init(_ tensor: SourceTensor, inputs: Int, phase: Int) {
    self.init(tensor, rowLength: 4 * inputs)
    sourceRowLength = 9 * inputs
    let (dy, dx) = phase.quotientAndRemainder(dividingBy: 2)
    fold = { kernel, values in
      for input in 0..<inputs {
        for place in 0..<4 { values[4 * input + place] = 0 }
        for tap in 0..<9 {
          values[4 * input + 2 * Self.source(tap / 3, dy) + Self.source(tap % 3, dx)] += kernel[9 * input + tap]
        }
      }
    }
  }

  /// Rows 0, 1, 2 of a kernel fall on rows 0, 1, 1 of the picture at an even place, and on 0, 0, 1 at an odd one.
  private static func source(_ row: Int, _ place: Int) -> Int { (row + 1 - place) / 2 }

  /// Row `index` into `values`, [rowLength].
  func read(_ index: Int, into values: UnsafeMutablePointer<Float>) {
    if let fold {
      withUnsafeTemporaryAllocation(of: Float.self, capacity: sourceRowLength) { row in
        guard let base = row.baseAddress else { return }
        tensor.readFloats(index * sourceRowLength..<(index + 1) * sourceRowLength, into: base)
        fold(base, values)
      }
      return
    }
    tensor.readFloats(index * rowLength..<(index + 1) * rowLength, into: values)
    adjust?(index, values)
  }
}
