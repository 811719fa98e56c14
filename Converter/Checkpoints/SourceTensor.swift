/// A tensor in a mapped file: where its elements are, not the elements.
///
/// Unsafe code: the initialiser checks that every element lies inside the file; `readFloats` relies on it.
package struct SourceTensor: Sendable {
  package let name: String
  package let shape: [Int]
  package let elementType: ElementType
  /// Elements in all.
  package let count: Int
  /// The path of the file that holds it.
  package var path: String { file.path }

  private let file: MappedFile
  /// Bytes from the start of the file to the first element.
  private let offset: Int
  /// Elements from one index to the next, per dimension of `shape`.
  private let strides: [Int]
  /// Bytes from the first to the end of the last element.
  private let span: Int
  /// `shape` and `strides` with neighbours merged where they run on; one axis of stride 1 when contiguous.
  private let axes: [Axis]

  private struct Axis {
    var size: Int
    var stride: Int
  }

  /// A view of `storage` (a byte range of `file`), whose first element is `start` elements in; row-major when `strides`
  /// is nil. Returns nil when an element would lie outside the storage or the tensor repeats elements.
  init?(
    name: String, elementType: ElementType, shape: [Int], strides: [Int]? = nil, start: Int = 0, storage: Range<Int>,
    file: MappedFile
  ) {
    guard let count = elementCount(shape), storage.lowerBound >= 0, storage.upperBound <= file.size else { return nil }
    let capacity = storage.count / elementType.bytes
    guard count <= capacity, start >= 0, start <= capacity else { return nil }
    let steps = strides ?? rowMajorStrides(shape)
    guard steps.count == shape.count, let last = lastElement(shape, steps) else { return nil }
    guard count == 0 || last < capacity - start else { return nil }
    self.init(
      name: name, elementType: elementType, shape: shape, strides: steps, count: count,
      offset: storage.lowerBound + start * elementType.bytes, span: count == 0 ? 0 : (last + 1) * elementType.bytes,
      file: file)
  }

  private init(
    name: String, elementType: ElementType, shape: [Int], strides: [Int], count: Int, offset: Int, span: Int,
    file: MappedFile
  ) {
    self.name = name
    self.elementType = elementType
    self.shape = shape
    self.strides = strides
    self.count = count
    self.offset = offset
    self.span = span
    self.file = file
    axes = SourceTensor.merged(shape, strides)
  }

  private static func merged(_ shape: [Int], _ strides: [Int]) -> [Axis] {
    var axes: [Axis] = []
    for (size, stride) in zip(shape, strides) where size != 1 {
      if let outer = axes.last, size > 0, outer.stride / size == stride, outer.stride % size == 0 {
        axes[axes.count - 1] = Axis(size: outer.size * size, stride: stride)
      } else {
        axes.append(Axis(size: size, stride: stride))
      }
    }
    return axes.isEmpty ? [Axis(size: 1, stride: 1)] : axes
  }

  /// Writes the elements `range` of the row-major tensor, as floats, to `output[0..<range.count]`.
  package func readFloats(_ range: Range<Int>, into output: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count)
    guard !range.isEmpty, let base = file.bytes(offset..<(offset + span)).baseAddress else { return }
    let bytes = elementType.bytes
    let inner = axes[axes.count - 1]
    var done = 0
    while done < range.count {
      let index = range.lowerBound + done
      let column = index % inner.size
      let run = min(inner.size - column, range.count - done)
      let element = rowStart(index / inner.size) + column * inner.stride
      elementType.widen(base + element * bytes, stride: inner.stride * bytes, count: run, into: output + done)
      done += run
    }
  }

  /// The element at which row `row` of the innermost axis begins.
  private func rowStart(_ row: Int) -> Int {
    var element = 0
    var rest = row
    for axis in axes.dropLast().reversed() {
      element += rest % axis.size * axis.stride
      rest /= axis.size
    }
    return element
  }

  /// All elements as floats; for small tensors.
  package func floats() -> [Float] {
    [Float](unsafeUninitializedCapacity: count) { buffer, filled in
      if let output = buffer.baseAddress { readFloats(0..<count, into: output) }
      filled = count
    }
  }

  /// Gives the pages behind this tensor back to the system, so that resident memory stays small. May be called between
  /// reads, too: what is read later comes from the file again.
  package func releasePages() { file.discard(offset..<(offset + span)) }

  /// The same elements under another name.
  package func renamed(_ name: String) -> SourceTensor {
    SourceTensor(
      name: name, elementType: elementType, shape: shape, strides: strides, count: count, offset: offset, span: span,
      file: file)
  }

  /// The slices `range` of the first dimension, without a copy; nil when the tensor has no such slices.
  package func rows(_ range: Range<Int>) -> SourceTensor? {
    guard let rows = shape.first, range.lowerBound >= 0, range.upperBound <= rows else { return nil }
    let start = range.isEmpty || count == 0 ? 0 : range.lowerBound * strides[0]
    return SourceTensor(
      name: name, elementType: elementType, shape: [range.count] + shape.dropFirst(), strides: strides, start: start,
      storage: offset..<(offset + span), file: file)
  }

  /// The same elements with dimensions of size 1 dropped from the end until `rank` remain; nil when that cannot be.
  package func droppingTrailingOnes(rank: Int) -> SourceTensor? {
    guard shape.count >= rank, shape[rank...].allSatisfy({ $0 == 1 }) else { return nil }
    return SourceTensor(
      name: name, elementType: elementType, shape: Array(shape.prefix(rank)), strides: Array(strides.prefix(rank)),
      count: count, offset: offset, span: span, file: file)
  }
}

/// The product of `shape`, or nil when it is negative somewhere or overflows.
func elementCount(_ shape: [Int]) -> Int? {
  var count = 1
  for size in shape {
    let (product, overflow) = count.multipliedReportingOverflow(by: size)
    guard size >= 0, !overflow else { return nil }
    count = product
  }
  return count
}

/// Strides in elements; `shape` has passed `elementCount`.
private func rowMajorStrides(_ shape: [Int]) -> [Int] {
  var strides = [Int](repeating: 1, count: shape.count)
  for index in shape.indices.dropLast().reversed() {
    strides[index] = strides[index + 1].multipliedReportingOverflow(by: max(1, shape[index + 1])).partialValue
  }
  return strides
}

/// The greatest element index, or nil when a stride is negative or the index overflows; 0 for an empty tensor.
private func lastElement(_ shape: [Int], _ strides: [Int]) -> Int? {
  if shape.contains(0) { return 0 }
  var last = 0
  for (size, stride) in zip(shape, strides) {
    let (reach, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
    let (sum, tooFar) = last.addingReportingOverflow(reach)
    guard stride >= 0, !overflow, !tooFar else { return nil }
    last = sum
  }
  return last
}
