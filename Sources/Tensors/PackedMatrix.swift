/// The logical size of a linear layer (one tap, one group) or a convolution (a tap for each kernel position).
package struct MatrixShape: Hashable, Sendable {
  /// All outputs, over all groups.
  package let outputs: Int
  /// Inputs of one group, per tap.
  package let inputs: Int
  package let taps: Int
  package let groups: Int
  package init(outputs: Int, inputs: Int, taps: Int = 1, groups: Int = 1) {
    precondition(outputs > 0 && inputs > 0 && taps > 0 && groups > 0 && outputs % groups == 0)
    self.outputs = outputs
    self.inputs = inputs
    self.taps = taps
    self.groups = groups
  }

  package static let panel = 8
  package static let quad = 4
  /// Panels of eight outputs in one group; the last one may be padded.
  package var panelsPerGroup: Int { (outputs / groups).roundedUp(to: Self.panel) / Self.panel }
  package var panels: Int { groups * panelsPerGroup }
  /// Outputs with the padding of each group's last panel: the length of scales and biases.
  package var paddedOutputs: Int { panels * Self.panel }
  package var paddedInputs: Int { inputs.roundedUp(to: Self.quad) }
  /// Whether it can be that of a convolution by Winograd's algorithm.
  package var canBeTransformed: Bool { taps == 9 && groups == 1 && inputs % 32 == 0 && outputs % 32 == 0 }
  /// Where output `index` lies among the padded ones.
  package func padded(_ index: Int) -> Int {
    let perGroup = outputs / groups
    return index / perGroup * panelsPerGroup * Self.panel + index % perGroup
  }
}

extension Int {
  /// The least multiple of `step` that is not below `self`.
  package func roundedUp(to step: Int) -> Int { (self + step - 1) / step * step }
}

/// Which int8 codes of a matrix may lie side by side.
package enum CodeForm: String, CaseIterable, Sendable {
  /// Any.
  case full
  /// Neighbours 2i and 2i + 1 of one sign have magnitudes that add up to at most 128: times activations of 0...255, the
  /// sum of their products then fits 16 bits, which lets a processor multiply with one instruction for four.
  case pairs
  /// Of the pairs at the same place of two neighbouring quads, inputs 8i, 8i + 1, 8i + 4 and 8i + 5, or those two places
  /// further, codes of one sign add up to at most 128, so that both sums of products can be added in 16 bits too.
  case fours
}

/// A matrix as the kernels read it, in panels of eight outputs; `Weights/README.md` has the layout to the byte.
package struct PackedMatrix: @unchecked Sendable {
  package enum Elements {
    /// int8 [panels, taps, inputs/4, 8, 4] with `scale` f32 [padded outputs] and `sum` i32 [taps, padded outputs].
    case int8(UnsafePointer<Int8>, scale: UnsafePointer<Float>, sum: UnsafePointer<Int32>, CodeForm)
    /// f32 [panels, taps, inputs, 8].
    case float32(UnsafePointer<Float>)
    /// IEEE binary16 [panels, taps, inputs, 8].
    case float16(UnsafePointer<UInt16>)
  }
  package let elements: Elements
  package let shape: MatrixShape
  /// f32 [padded outputs].
  package let bias: UnsafePointer<Float>?
  /// f32 [taps], int8 convolutions only: what the codes of a tap are multiplied by besides their output's scale.
  package let tapScale: UnsafePointer<Float>?
  /// Whether it is a 3x3 convolution for Winograd's algorithm: int8 codes of any form, of which no tap has a scale of its
  /// own, with inputs and outputs in multiples of 32.
  package let isTransformed: Bool
  package init(
    elements: Elements, shape: MatrixShape, bias: UnsafePointer<Float>?, tapScale: UnsafePointer<Float>? = nil,
    isTransformed: Bool = false
  ) {
    precondition(!isTransformed || shape.canBeTransformed)
    self.isTransformed = isTransformed
    self.elements = elements
    self.shape = shape
    self.bias = bias
    self.tapScale = tapScale
  }

  /// Of the runs of panels that products of large matrices are cut into, so that no more of their weights need be in memory.
  package static let partBytes = 8 << 20

  /// Runs of panels, by fours, of up to `partBytes` or of four; a grouped matrix is one.
  package var parts: [Range<Int>] {
    let panels = shape.panelsPerGroup
    let most = max(4, Self.partBytes / (bytes.count / shape.panels) / 4 * 4)
    let parts = shape.groups > 1 ? 1 : panels.roundedUp(to: most) / most
    let size = (panels.roundedUp(to: parts) / parts).roundedUp(to: 4)
    return stride(from: 0, to: panels, by: size).map { $0..<min($0 + size, panels) }
  }

  /// The elements of some panels of a matrix of one group.
  package func bytes(ofPanels range: Range<Int>) -> UnsafeRawBufferPointer {
    let panel = bytes.count / shape.panels
    let part =
      range.count == shape.panelsPerGroup ? 0..<bytes.count : range.lowerBound * panel..<range.upperBound * panel
    return UnsafeRawBufferPointer(rebasing: bytes[part])
  }

  /// The elements, without scales and biases.
  package var bytes: UnsafeRawBufferPointer {
    let count = shape.panels * MatrixShape.panel * shape.taps
    switch elements {
    case .int8(let values, _, _, _): return UnsafeRawBufferPointer(start: values, count: count * shape.paddedInputs)
    case .float32(let values): return UnsafeRawBufferPointer(start: values, count: 4 * count * shape.inputs)
    case .float16(let values): return UnsafeRawBufferPointer(start: values, count: 2 * count * shape.inputs)
    }
  }
}

/// u8 rows, each with a scale and a zero point: value = scale[row] * (q - zero[row]). Rows are `stride` bytes apart.
///
/// Where `isPaired`, a row of the second half holds the difference to the row of the first half at the same place: the
/// two halves of classifier-free guidance are nearly alike, and guidance multiplies the error of what tells them apart.
package struct QuantizedRows: @unchecked Sendable {
  package let values: UnsafeMutablePointer<UInt8>
  package let scale: UnsafeMutablePointer<Float>
  package let zero: UnsafeMutablePointer<Int32>
  package let rows: Int
  package let columns: Int
  package let stride: Int
  package let isPaired: Bool
  /// What was quantised, where somebody compares.
  package let origin: RowOrigin?
  package init(
    values: UnsafeMutablePointer<UInt8>, scale: UnsafeMutablePointer<Float>, zero: UnsafeMutablePointer<Int32>,
    rows: Int, columns: Int, stride: Int, isPaired: Bool, origin: RowOrigin? = nil
  ) {
    self.origin = origin
    self.values = values
    self.scale = scale
    self.zero = zero
    self.rows = rows
    self.columns = columns
    self.stride = stride
    self.isPaired = isPaired
  }
}

/// The floats that quantised rows stand for, f32 [rows, columns]; of paired rows the second half are no differences.
///
/// Sound because the memory is its own; threads write different rows of it, before anybody reads them.
package final class RowOrigin: @unchecked Sendable {
  package let matrix: Matrix

  package init(rows: Int, columns: Int) {
    matrix = Matrix(base: .allocate(capacity: rows * columns), rows: rows, columns: columns)
  }

  deinit { matrix.base.deallocate() }

  /// Copies `x` to the rows from `first` on.
  package func keep(_ x: Matrix, at first: Int) {
    precondition(x.columns == matrix.columns && first + x.rows <= matrix.rows)
    matrix.row(first).update(from: x.base, count: x.count)
  }
}

/// Rows that are looked up one at a time: [rows, columns], int8 rows have a scale each.
package struct EmbeddingTable: @unchecked Sendable {
  package enum Elements {
    case int8(UnsafePointer<Int8>, scale: UnsafePointer<Float>)
    case float32(UnsafePointer<Float>)
    case float16(UnsafePointer<UInt16>)
  }
  package let elements: Elements
  package let rows: Int
  package let columns: Int
  package init(elements: Elements, rows: Int, columns: Int) {
    self.elements = elements
    self.rows = rows
    self.columns = columns
  }

  /// Row `index` as f32 [columns] into `out`.
  package func read(_ index: Int, into out: UnsafeMutablePointer<Float>) {
    precondition(index >= 0 && index < rows)
    let first = index * columns
    switch elements {
    case .int8(let values, let scale):
      for c in 0..<columns { out[c] = Float(values[first + c]) * scale[index] }
    case .float32(let values):
      out.update(from: values + first, count: columns)
    case .float16(let values):
      for c in 0..<columns { out[c] = Float(Float16(bitPattern: values[first + c])) }
    }
  }
}
