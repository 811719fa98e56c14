import Glibc

/// How alike two pictures of one size are: RGB of 8 bits, [height, width, 3].
package enum PictureMetrics {
  /// Peak signal-to-noise ratio over all samples, in decibels: infinite where the pictures are equal.
  package static func psnr(_ a: [UInt8], _ b: [UInt8]) -> Double {
    precondition(a.count == b.count && !a.isEmpty)
    let squares = zip(a, b).reduce(0) { sum, pair in
      let difference = Int(pair.0) - Int(pair.1)
      return sum + difference * difference
    }
    return squares == 0 ? .infinity : 10 * log10(255 * 255 * Double(a.count) / Double(squares))
  }

  /// Structural similarity (Wang et al. 2004): a Gaussian window of 11 x 11 with a deviation of 1.5, constants 0.01 and
  /// 0.03, over the places where the whole window is inside; the mean over red, green and blue. 1 where the pictures are
  /// equal; nil where a side is less than the window.
  package static func ssim(_ a: [UInt8], _ b: [UInt8], width: Int, height: Int) -> Double? {
    precondition(a.count == width * height * 3 && b.count == a.count)
    guard min(width, height) >= window.count else { return nil }
    let channels = (0..<3).map { channel -> Double in
      let x = stride(from: channel, to: a.count, by: 3).map { Double(a[$0]) }
      let y = stride(from: channel, to: b.count, by: 3).map { Double(b[$0]) }
      return ssim(x, y, width: width)
    }
    return (channels[0] + channels[1] + channels[2]) / 3
  }

  private static let c1 = (0.01 * 255) * (0.01 * 255)
  private static let c2 = (0.03 * 255) * (0.03 * 255)

  /// One side of the window, which is their product; its sum is 1.
  private static let window: [Double] = {
    let weights = (-5...5).map { exp(-Double($0 * $0) / (2 * 1.5 * 1.5)) }
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }()

  private static func ssim(_ x: [Double], _ y: [Double], width: Int) -> Double {
    let meansX = blur(x, width)
    let meansY = blur(y, width)
    let squaresX = blur(zip(x, x).map(*), width)
    let squaresY = blur(zip(y, y).map(*), width)
    let products = blur(zip(x, y).map(*), width)
    var sum = 0.0
    for i in meansX.indices {
      let (meanX, meanY) = (meansX[i], meansY[i])
      let variances = (squaresX[i] - meanX * meanX) + (squaresY[i] - meanY * meanY)
      let covariance = products[i] - meanX * meanY
      sum +=
        (2 * (meanX * meanY) + c1) * (2 * covariance + c2) / ((meanX * meanX + meanY * meanY + c1) * (variances + c2))
    }
    return sum / Double(meansX.count)
  }

  /// [height, width] -> [height - 10, width - 10]
  private static func blur(_ x: [Double], _ width: Int) -> [Double] {
    let narrow = width - window.count + 1
    let height = x.count / width
    var lines = [Double](repeating: 0, count: height * narrow)
    for row in 0..<height {
      for column in 0..<narrow {
        var sum = 0.0
        for (tap, weight) in window.enumerated() { sum += weight * x[row * width + column + tap] }
        lines[row * narrow + column] = sum
      }
    }
    var out = [Double](repeating: 0, count: (height - window.count + 1) * narrow)
    for index in out.indices {
      var sum = 0.0
      for (tap, weight) in window.enumerated() { sum += weight * lines[index + tap * narrow] }
      out[index] = sum
    }
    return out
  }

  /// |a - b| / |b| of Euclidean norms: zero where both are zero.
  package static func relativeError(_ a: [Float], _ b: [Float]) -> Double {
    precondition(a.count == b.count)
    var (signal, noise) = (0.0, 0.0)
    for (x, y) in zip(a, b) {
      let difference = Double(x) - Double(y)
      signal += Double(y) * Double(y)
      noise += difference * difference
    }
    return noise == 0 ? 0 : (noise / signal).squareRoot()
  }
}
