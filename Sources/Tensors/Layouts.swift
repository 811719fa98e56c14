/// Views of memory that somebody else owns (the arena, or a mapped file). Copying a view copies no element.
/// Floats are IEEE binary32; every layout is row-major with the channel axis last.

/// f32 [count].
package struct Vector: @unchecked Sendable {
  package let base: UnsafeMutablePointer<Float>
  package let count: Int
  package init(base: UnsafeMutablePointer<Float>, count: Int) {
    self.base = base
    self.count = count
  }
}

/// f32 [rows, columns], rows adjacent.
package struct Matrix: @unchecked Sendable {
  package let base: UnsafeMutablePointer<Float>
  package let rows: Int
  package let columns: Int
  package init(base: UnsafeMutablePointer<Float>, rows: Int, columns: Int) {
    self.base = base
    self.rows = rows
    self.columns = columns
  }
  package var count: Int { rows * columns }
  package func row(_ index: Int) -> UnsafeMutablePointer<Float> { base + index * columns }
  /// The rows `range` of this matrix, without a copy.
  package func rows(_ range: Range<Int>) -> Matrix {
    precondition(range.lowerBound >= 0 && range.upperBound <= rows)
    return Matrix(base: row(range.lowerBound), rows: range.count, columns: columns)
  }
}

/// One or two maps of one size, side by side on the channel axis, without a copy.
package struct JoinedMap: @unchecked Sendable {
  package let first: FeatureMap
  package let second: FeatureMap?
  package init(_ first: FeatureMap, _ second: FeatureMap? = nil) {
    precondition(second.map { $0.pixels == first.pixels } ?? true)
    self.first = first
    self.second = second
  }
  package var parts: [FeatureMap] { second.map { [first, $0] } ?? [first] }
  package var images: Int { first.images }
  package var height: Int { first.height }
  package var width: Int { first.width }
  package var pixels: Int { first.pixels }
  package var channels: Int { first.channels + (second?.channels ?? 0) }
}

/// f32 [images, height, width, channels].
package struct FeatureMap: @unchecked Sendable {
  package let base: UnsafeMutablePointer<Float>
  package let images: Int
  package let height: Int
  package let width: Int
  package let channels: Int
  package init(base: UnsafeMutablePointer<Float>, images: Int, height: Int, width: Int, channels: Int) {
    self.base = base
    self.images = images
    self.height = height
    self.width = width
    self.channels = channels
  }
  package var pixels: Int { images * height * width }
  /// The same memory as [images * height * width, channels].
  package var tokens: Matrix { Matrix(base: base, rows: pixels, columns: channels) }
}
