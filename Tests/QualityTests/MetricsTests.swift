import Foundation
import Testing

@testable import Quality

/// The numbers that a user compares models by.
@Suite struct MetricsTests {
  private struct Case: Decodable {
    let width: Int
    let height: Int
    let strength: Int
    let psnr: Double
    let ssim: Double
  }

  private static func cases() throws -> [Case] {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
      "Fixtures/metrics.json")
    return try JSONDecoder().decode([Case].self, from: Data(contentsOf: file))
  }

  /// As in `make_fixtures.py`.
  private static func pictures(_ c: Case) -> ([UInt8], [UInt8]) {
    var (first, second): ([UInt8], [UInt8]) = ([], [])
    for i in 0..<c.width * c.height * 3 {
      let value: Int = (7 * i + i * i / 5) % 256
      let change: Int = 13 * i % (2 * c.strength + 1) - c.strength
      first.append(UInt8(value))
      second.append(UInt8(min(255, max(0, value + change))))
    }
    return (first, second)
  }

  @Test func psnrAndSSIMAreThoseOfTheFormulas() throws {
    let cases = try Self.cases()
    #expect(cases.count == 4)
    for c in cases {
      let (a, b) = Self.pictures(c)
      #expect(abs(PictureMetrics.psnr(a, b) - c.psnr) < 1e-10)
      // Variances are differences of squares up to 2^16 here, which costs 2^-37 of them.
      let ssim = try #require(PictureMetrics.ssim(a, b, width: c.width, height: c.height))
      #expect(abs(ssim - c.ssim) < 1e-8, "\(c)")
    }
  }

  @Test func valuesDerivedByHand() throws {
    let zeros = [UInt8](repeating: 0, count: 12 * 12 * 3)
    let ones = [UInt8](repeating: 1, count: zeros.count)
    let white = [UInt8](repeating: 255, count: zeros.count)
    // A mean squared error of 1: 20 log10 255.
    #expect(abs(PictureMetrics.psnr(zeros, ones) - 48.130803608679) < 1e-10)
    #expect(PictureMetrics.psnr(zeros, white) == 0)
    // Without variance only the luminance is left, c1 / (255^2 + c1) with c1 = 2.55^2.
    let ssim = try #require(PictureMetrics.ssim(zeros, white, width: 12, height: 12))
    #expect(abs(ssim - 6.5025 / 65_031.5025) < 1e-12)
    // One sample of 432 is wrong by 51: 10 log10(432 * 25).
    var spot = zeros
    spot[200] = 51
    #expect(abs(PictureMetrics.psnr(zeros, spot) - 40.334237554869) < 1e-10)
  }

  @Test func equalPicturesAreEqualWithoutRounding() throws {
    for c in try Self.cases() {
      let (a, _) = Self.pictures(c)
      #expect(PictureMetrics.psnr(a, a) == .infinity)
      #expect(PictureMetrics.ssim(a, a, width: c.width, height: c.height) == 1)
    }
  }

  @Test func aPictureSmallerThanTheWindowHasNoSSIM() {
    let a = [UInt8](repeating: 7, count: 8 * 16 * 3)
    #expect(PictureMetrics.ssim(a, a, width: 8, height: 16) == nil)
    #expect(PictureMetrics.ssim(a, a, width: 16, height: 8) == nil)
  }

  @Test func relativeErrors() {
    #expect(PictureMetrics.relativeError([1, 2], [1, 2]) == 0)
    // |(0, 5)| / |(3, -4)|
    #expect(PictureMetrics.relativeError([3, 1], [3, -4]) == 1)
    #expect(PictureMetrics.relativeError([0, 0], [0, 0]) == 0)
    #expect(PictureMetrics.relativeError([1], [0]) == .infinity)
  }
}
