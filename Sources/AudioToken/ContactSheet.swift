/// Pictures of one size in rows and columns, with white between them. Each pixel may be enlarged to a square.
package struct ContactSheet: Sendable {
  package struct Layout: Sendable {
    /// Pixels between two pictures.
    package static let gap = 8
    package static let scales = 1...32

    package let rows: Int
    package let columns: Int
    /// Of one picture, before it is enlarged.
    package let tileWidth: Int
    package let tileHeight: Int
    package let scale: Int

    /// - Throws: where the sheet would be larger than a PNG may be.
    package init(
      rows: Int, columns: Int, tileWidth: Int, tileHeight: Int, scale: Int
    ) throws(AudioTokenError) {
      guard Self.scales.contains(scale) else {
        throw AudioTokenError(
          .usage,
          "--scale is \(scale), where \(Self.scales.lowerBound) to \(Self.scales.upperBound) is expected; "
            + "leave it out to keep the pixels.")
      }
      (self.rows, self.columns, self.scale) = (rows, columns, scale)
      (self.tileWidth, self.tileHeight) = (tileWidth, tileHeight)
      guard max(width, height) <= PNGImage.largestSide else {
        throw AudioTokenError(
          .usage,
          "The sheet would have \(width) x \(height) pixels, where a PNG takes \(PNGImage.largestSide) a side; give fewer "
            + "sounds and seeds, or a smaller --scale.")
      }
    }

    package var width: Int { columns * (tileWidth * scale + Self.gap) - Self.gap }
    package var height: Int { rows * (tileHeight * scale + Self.gap) - Self.gap }
    package var bytes: Int { width * height * 3 }
  }

  package let layout: Layout
  /// RGB, [height, width, 3].
  package private(set) var pixels: [UInt8]

  package init(_ layout: Layout) {
    self.layout = layout
    pixels = [UInt8](repeating: 255, count: layout.bytes)
  }

  /// - Parameter tile: RGB, [tile height, tile width, 3].
  package mutating func place(_ tile: [UInt8], row: Int, column: Int) {
    let (width, height, scale) = (layout.tileWidth, layout.tileHeight, layout.scale)
    precondition(tile.count == width * height * 3 && row < layout.rows && column < layout.columns)
    let top = row * (height * scale + Layout.gap)
    let left = column * (width * scale + Layout.gap)
    for y in 0..<height * scale {
      var place = ((top + y) * layout.width + left) * 3
      for x in 0..<width * scale {
        let source = (y / scale * width + x / scale) * 3
        for channel in 0..<3 { pixels[place + channel] = tile[source + channel] }
        place += 3
      }
    }
  }
}
