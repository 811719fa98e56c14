/// Which input row each tap of each output row reads: rows are the pixels of images, taps the places of a kernel.
package struct Window: Sendable {
  package struct Size: Equatable, Sendable {
    package var height: Int
    package var width: Int
    package init(_ height: Int, _ width: Int) {
      self.height = height
      self.width = width
    }
  }
  package let kernel: Size
  let stride: Int
  package let input: Size
  /// The size that the input is enlarged to by nearest neighbour, or its own.
  let virtual: Size
  package let output: Size
  /// Pixels of zero padding before the first.
  let padding: Size
  /// Whether output row r reads input row r and nothing else.
  private let isSame: Bool
  /// Of the tiles of an output that Winograd's convolution computes.
  package static let tileSide = 4
  /// Whether a 3x3 kernel goes over a whole map pixel by pixel, whose sides are multiples of `tileSide`. Of bands, that of
  /// the map, whose lines they must then hold by fours.
  package private(set) var hasTiles: Bool

  /// - Parameter padding: `kernel / 2` by default.
  package init(
    kernel: Size, stride: Int, input: Size, enlarged: Size? = nil, output: Size, padding: Size? = nil
  ) {
    self.kernel = kernel
    self.padding = padding ?? Size(kernel.height / 2, kernel.width / 2)
    self.stride = stride
    self.input = input
    virtual = enlarged ?? input
    self.output = output
    hasTiles =
      kernel == Size(3, 3) && stride == 1 && virtual == input && output == input && self.padding == Size(1, 1)
      && output.height % Self.tileSide == 0 && output.width % Self.tileSide == 0
    isSame =
      kernel == Size(1, 1) && stride == 1 && virtual == input && input == output && self.padding == Size(0, 0)
  }

  /// A linear layer: output row r reads input row r.
  package static func same(rows: Int) -> Window {
    Window(kernel: Size(1, 1), stride: 1, input: Size(1, rows), output: Size(1, rows))
  }

  /// The lines of the input that output lines `lines` read.
  package func inputLines(for lines: Range<Int>) -> Range<Int> {
    guard virtual.height == input.height else { return 0..<input.height }
    let first = lines.lowerBound * stride - padding.height
    let last = (lines.upperBound - 1) * stride - padding.height + kernel.height
    return max(0, first)..<min(input.height, last)
  }

  /// The same for output lines `lines`, where of each image only the input lines `input` are there.
  package func band(_ lines: Range<Int>, reading input: Range<Int>) -> Window {
    if lines.count == output.height && input.count == self.input.height { return self }
    precondition(virtual.height == self.input.height)
    var band = Window(
      kernel: kernel, stride: stride, input: Size(input.count, self.input.width),
      enlarged: Size(input.count, virtual.width), output: Size(lines.count, output.width),
      padding: Size(padding.height + input.lowerBound - lines.lowerBound * stride, padding.width))
    // Whether a convolution is computed in tiles follows from its map, not from the bands it is cut into.
    band.hasTiles = hasTiles
    return band
  }

  /// Calls `body` with each of the places lines x columns of an image, which are counted from the top left corner of the
  /// first output's kernel, and the input row that lies there; negative on padding. Of windows that have tiles.
  @inline(__always)
  func forEachSource(
    _ image: Int, _ lines: Range<Int>, _ columns: Range<Int>, _ body: (_ place: Int, _ source: Int) -> Void
  ) {
    var place = 0
    for v in lines.lowerBound - padding.height..<lines.upperBound - padding.height {
      let isInside = v >= 0 && v < input.height
      for u in columns.lowerBound - padding.width..<columns.upperBound - padding.width {
        body(place, isInside && u >= 0 && u < input.width ? (image * input.height + v) * input.width + u : -1)
        place += 1
      }
    }
  }

  /// Calls `body` with each tap and the input row that output row `row` reads there; negative on padding.
  @inline(__always)
  func forEachTap(of row: Int, _ body: (_ tap: Int, _ source: Int) -> Void) {
    if isSame { return body(0, row) }
    let (image, pixel) = row.quotientAndRemainder(dividingBy: output.height * output.width)
    let (y, x) = pixel.quotientAndRemainder(dividingBy: output.width)
    let top = y * stride - padding.height
    let left = x * stride - padding.width
    var tap = 0
    for v in top..<top + kernel.height {
      let isInside = v >= 0 && v < virtual.height
      let line = isInside ? (image * input.height + shrunk(v, virtual.height, to: input.height)) * input.width : -1
      for u in left..<left + kernel.width {
        body(tap, line >= 0 && u >= 0 && u < virtual.width ? line + shrunk(u, virtual.width, to: input.width) : -1)
        tap += 1
      }
    }
  }

  /// The place along a side of `to` pixels that was enlarged to `from`.
  @inline(__always)
  private func shrunk(_ place: Int, _ from: Int, to: Int) -> Int { from == to ? place : place * to / from }
}
