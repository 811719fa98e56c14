import Testing

@testable import Kernels

@Suite struct WindowTests {
  private struct Case: CustomStringConvertible {
    var images = 1
    let kernel: Window.Size
    var stride = 1
    let input: Window.Size
    var enlarged: Window.Size?

    /// The sizes of torch with a padding of half an odd kernel; an even kernel drops the last place, as BEATs does.
    var output: Window.Size {
      let size = enlarged ?? input
      return Window.Size((size.height - 1) / stride + 1, (size.width - 1) / stride + 1)
    }

    var description: String {
      "\(images) x \(input), kernel \(kernel), stride \(stride), enlarged \(enlarged ?? input)"
    }

    /// The place in an image of `size` that torch's interpolate(mode="nearest") shows at `index` of `target`.
    private func nearest(_ index: Int, _ size: Int, _ target: Int) -> Int {
      min(Int((Float(index) * (Float(size) / Float(target))).rounded(.down)), size - 1)
    }

    /// [output rows][taps]: enlarges and pads each image as a picture of its rows' numbers, then looks.
    func expected() -> [[Int]] {
      let size = enlarged ?? input
      let before = Window.Size(kernel.height / 2, kernel.width / 2)
      var result: [[Int]] = []
      for image in 0..<images {
        let blank = [Int](repeating: -1, count: size.width + 2 * kernel.width)
        var padded = [[Int]](repeating: blank, count: size.height + 2 * kernel.height)
        for y in 0..<size.height {
          for x in 0..<size.width {
            let line = image * input.height + nearest(y, input.height, size.height)
            padded[y + before.height][x + before.width] = line * input.width + nearest(x, input.width, size.width)
          }
        }
        for y in 0..<output.height {
          for x in 0..<output.width {
            result.append(
              (0..<kernel.height).flatMap { i in
                (0..<kernel.width).map { j in padded[y * stride + i][x * stride + j] }
              })
          }
        }
      }
      return result
    }
  }

  private func check(_ c: Case) {
    let window = Window(kernel: c.kernel, stride: c.stride, input: c.input, enlarged: c.enlarged, output: c.output)
    let taps = c.kernel.height * c.kernel.width
    for (row, expected) in c.expected().enumerated() {
      var found = [Int?](repeating: nil, count: taps)
      var isOnce = true
      window.forEachTap(of: row) { tap, source in
        isOnce = isOnce && found[tap] == nil
        found[tap] = max(source, -1)
      }
      #expect(isOnce && found == expected.map { Optional($0) }, "row \(row) of \(c)")
    }
  }

  @Test("Convolutions read the pixels around their own, and padding outside", arguments: [1, 2])
  func convolutions(stride: Int) {
    for (height, width) in [(1, 1), (1, 2), (2, 1), (3, 5), (4, 4), (7, 6), (12, 9)] {
      for kernel in [1, 3, 5] {
        for images in [1, 3] {
          check(
            Case(images: images, kernel: .init(kernel, kernel), stride: stride, input: .init(height, width)))
        }
      }
    }
  }

  @Test("Enlarged pictures are read where torch reads them, also those of odd sizes")
  func enlargements() {
    for (input, enlarged) in [
      ((1, 1), (2, 2)), ((1, 1), (1, 2)), ((3, 4), (6, 8)), ((3, 4), (5, 7)), ((6, 5), (11, 9)),
    ] {
      for kernel in [1, 3] {
        for images in [1, 2] {
          for stride in [1, 2] {
            check(
              Case(
                images: images, kernel: .init(kernel, kernel), stride: stride, input: .init(input.0, input.1),
                enlarged: .init(enlarged.0, enlarged.1)))
          }
        }
      }
    }
  }

  @Test("An even kernel reads half of its taps before its own place, and one less after it")
  func evenKernels() {
    for (tokens, taps) in [(1, 2), (3, 16), (9, 6), (21, 5), (300, 128)] {
      check(Case(kernel: .init(1, taps), input: .init(1, tokens)))
    }
    let window = Window(kernel: .init(1, 4), stride: 1, input: .init(1, 5), output: .init(1, 5))
    var sources: [Int] = []
    window.forEachTap(of: 1) { sources.append($1) }
    #expect(sources.map { max($0, -1) } == [-1, 0, 1, 2])
  }

  @Test("A linear layer reads its own row")
  func sameRows() {
    for rows in [1, 7, 100] {
      let window = Window.same(rows: rows)
      for row in 0..<rows {
        var sources: [Int] = []
        window.forEachTap(of: row) { sources.append(contentsOf: [$0, $1]) }
        #expect(sources == [0, row])
      }
    }
  }
}
