/// Views of memory that somebody else owns (the arena, or a mapped file). Copying a view copies no element.
/// Floats are IEEE binary32 unless a storage says otherwise; every layout is row-major with the channel axis last.

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

/// How floats lie in memory.
package enum Storage: Sendable {
  case float32
  /// IEEE binary16.
  case float16

  package var bytes: Int { self == .float32 ? 4 : 2 }
}

/// f32 or f16 [rows, columns], rows adjacent: what a product adds to and writes.
package struct StoredRows: @unchecked Sendable {
  package let base: UnsafeMutableRawPointer
  package let storage: Storage
  package let rows: Int
  package let columns: Int
  package init(base: UnsafeMutableRawPointer, storage: Storage, rows: Int, columns: Int) {
    self.base = base
    self.storage = storage
    self.rows = rows
    self.columns = columns
  }
  package init(_ matrix: Matrix) {
    self.init(base: matrix.base, storage: .float32, rows: matrix.rows, columns: matrix.columns)
  }
  package func row(_ index: Int) -> UnsafeMutableRawPointer { base + index * columns * storage.bytes }
  package func rows(_ range: Range<Int>) -> StoredRows {
    precondition(range.lowerBound >= 0 && range.upperBound <= rows)
    return StoredRows(base: row(range.lowerBound), storage: storage, rows: range.count, columns: columns)
  }
  /// Themselves, where they are f32.
  package var matrix: Matrix? {
    guard storage == .float32 else { return nil }
    return Matrix(base: base.assumingMemoryBound(to: Float.self), rows: rows, columns: columns)
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
  /// Calls `body` with each map and the channel of this one that is its first.
  package func eachPart(_ body: (FeatureMap, _ channel: Int) -> Void) {
    body(first, 0)
    if let second { body(second, first.channels) }
  }
  package var images: Int { first.images }
  package var height: Int { first.height }
  package var width: Int { first.width }
  package var pixels: Int { first.pixels }
  package var channels: Int { first.channels + (second?.channels ?? 0) }
  /// The images `range`.
  package func images(_ range: Range<Int>) -> JoinedMap { JoinedMap(first.images(range), second?.images(range)) }
  /// Some lines of a single image.
  package func lines(_ range: Range<Int>) -> JoinedMap { JoinedMap(first.lines(range), second?.lines(range)) }
}

/// f32 or f16 [images, height, width, channels].
package struct FeatureMap: @unchecked Sendable {
  package let base: UnsafeMutableRawPointer
  package let storage: Storage
  package let images: Int
  package let height: Int
  package let width: Int
  package let channels: Int
  package init(
    base: UnsafeMutableRawPointer, storage: Storage, images: Int, height: Int, width: Int, channels: Int
  ) {
    self.base = base
    self.storage = storage
    self.images = images
    self.height = height
    self.width = width
    self.channels = channels
  }
  package var pixels: Int { images * height * width }
  package var bytes: Int { pixels * channels * storage.bytes }
  /// The same memory as [images * height * width, channels].
  package var rows: StoredRows { StoredRows(base: base, storage: storage, rows: pixels, columns: channels) }
  /// The same, of a map of f32.
  package var tokens: Matrix {
    precondition(storage == .float32)
    return Matrix(base: base.assumingMemoryBound(to: Float.self), rows: pixels, columns: channels)
  }
  /// The images `range`.
  package func images(_ range: Range<Int>) -> FeatureMap {
    precondition(range.lowerBound >= 0 && range.upperBound <= images)
    return FeatureMap(
      base: rows.row(range.lowerBound * height * width), storage: storage, images: range.count, height: height,
      width: width, channels: channels)
  }
  /// Some lines of a single image.
  package func lines(_ range: Range<Int>) -> FeatureMap {
    precondition(images == 1 && range.lowerBound >= 0 && range.upperBound <= height)
    return FeatureMap(
      base: rows.row(range.lowerBound * width), storage: storage, images: 1, height: range.count, width: width,
      channels: channels)
  }
}
