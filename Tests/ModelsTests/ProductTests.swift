import Kernels
import Tensors
import Testing

@testable import Models

/// The exact sum of products of one output, and what its error depends on.
private struct Products {
  var value = 0.0
  /// Sum of |x w|.
  var magnitude = 0.0
  /// Sum of what rounding x to its row's 255 steps may change.
  var quantisation = 0.0
  var terms = 0

  mutating func add(_ x: Float, _ w: Float, step: Double) {
    value += Double(x) * Double(w)
    magnitude += (Double(x) * Double(w)).magnitude
    // Half a step, and the rounding of x / step, which is below 255.
    quantisation += step * (0.5 + 255 * 0x1p-22) * Double(w).magnitude
    terms += 1
  }

  /// Adds the bias and the residual. Floats: each of the products and sums rounds once, and no partial sum is larger than
  /// the sum of magnitudes. Int8: integers are exact; the taps, the scales and the weights themselves round.
  func bounded(_ kind: RandomWeights.Kind, taps: Int, isExact: Bool, plus others: Float...) -> Bounded {
    let total = others.reduce(value) { $0 + Double($1) }
    let size = others.reduce(magnitude + quantisation) { $0 + Double($1.magnitude) }
    let roundings = Double(kind.isInt8 ? 2 * taps + 8 : terms + 4)
    let steps = kind.isInt8 && !isExact ? quantisation : 0
    return Bounded(value: total, error: steps + roundings * 0x1p-24 * size)
  }
}

/// The inputs of a layer: rows of channels.
private struct Input {
  let columns: Int
  var values: [Float]
  /// Whether quantising the rows changes nothing.
  let isExact: Bool

  /// With `exact`, integers between two whose distance is 255, times a power of two that differs from row to row.
  init(_ rows: Int, _ columns: Int, exact: Bool, seed: Int) {
    var generator = Generator(seed)
    self.columns = columns
    isExact = exact
    values = []
    for row in 0..<rows {
      if exact {
        let low = columns > 1 ? Int.random(in: 0...255, using: &generator) : row % 2 * 255
        let scale = Float(sign: .plus, exponent: row % 7 - 8, significand: 1)
        var integers = (0..<columns).map { _ in Int.random(in: -low...255 - low, using: &generator) }
        integers[row % columns] = -low
        integers[(row + columns / 2) % columns] = columns > 1 ? 255 - low : [255, -255][row % 2]
        values += integers.map { Float($0) * scale }
      } else {
        // Rows of one sign, of both, and of zeros alone.
        let range: ClosedRange<Float> = [-1...1, 0.5...3, -2...(-1), -100...0.01, 0...0][row % 5]
        values += generator.floats(columns, range)
      }
    }
  }

  subscript(row: Int, column: Int) -> Float { values[row * columns + column] }

  func step(_ row: Int) -> Double {
    let slice = values[row * columns..<(row + 1) * columns]
    return (Double(max(0, slice.max() ?? 0)) - Double(min(0, slice.min() ?? 0))) / 255
  }
}

/// What is added to a product.
enum Residual: CaseIterable {
  case none
  case separate
  case inPlace
}

@Suite struct ProductTests {
  static let cases = RandomWeights.Kind.allCases.flatMap { kind in [(kind, false), (kind, true)] }

  @Test("A linear layer multiplies by the weights of the file", arguments: cases)
  func linear(_ kind: RandomWeights.Kind, exact: Bool) throws {
    for (rows, inputs, outputs) in [(1, 1, 1), (3, 7, 9), (61, 4, 8), (5, 50, 20), (130, 33, 17), (2, 320, 40)] {
      for (index, residual) in Residual.allCases.enumerated() {
        let run = try makeRun(pools[index])
        let weights = RandomWeights(kind)
        let layer = try Linear(Weights(weights, "layer"), inputs, outputs, bias: index != 1)
        let dense = try #require(weights.matrices["layer"])
        let input = Input(rows, inputs, exact: exact, seed: rows + inputs)
        var generator = Generator(outputs)
        let added = residual == .none ? nil : generator.floats(rows * outputs)
        let x = run.matrix(rows, inputs, input.values)
        let out = residual == .inPlace ? run.matrix(rows, outputs, added!) : run.blank(rows, outputs)
        let other = residual == .separate ? run.matrix(rows, outputs, added!) : out
        layer(x, into: out, adding: residual == .none ? nil : other, run)
        var expected: [Bounded] = []
        for r in 0..<rows {
          for o in 0..<outputs {
            var products = Products()
            for i in 0..<inputs { products.add(input[r, i], dense[o, i, 0], step: input.step(r)) }
            expected.append(
              products.bounded(
                kind, taps: 1, isExact: exact, plus: dense.bias.isEmpty ? 0 : dense.bias[o],
                added?[r * outputs + o] ?? 0))
          }
        }
        expectWithin(out.elements, expected, "\(kind) \(rows) x \(inputs) -> \(outputs), \(residual)")
        #expect(x.elements == input.values, "the input is changed")
      }
    }
  }

  struct Shape: CustomStringConvertible {
    var images = 1
    let size: (height: Int, width: Int)
    let inputs: Int
    let outputs: Int
    var kernel = 3
    var stride = 1
    var enlarged: (height: Int, width: Int)?
    var output: (height: Int, width: Int) {
      let (height, width) = enlarged ?? size
      return ((height + stride - 1) / stride, (width + stride - 1) / stride)
    }
    var description: String { "\(images) x \(size) x \(inputs) -> \(outputs), stride \(stride), \(enlarged ?? size)" }
  }

  static let shapes = [
    Shape(size: (1, 1), inputs: 4, outputs: 8), Shape(size: (5, 7), inputs: 3, outputs: 9),
    Shape(images: 2, size: (4, 4), inputs: 8, outputs: 8), Shape(size: (12, 11), inputs: 16, outputs: 16),
    Shape(images: 2, size: (7, 5), inputs: 4, outputs: 6, stride: 2),
    Shape(size: (8, 6), inputs: 5, outputs: 8, stride: 2), Shape(size: (1, 2), inputs: 5, outputs: 8, stride: 2),
    Shape(size: (3, 4), inputs: 4, outputs: 8, enlarged: (6, 8)),
    Shape(images: 2, size: (3, 4), inputs: 6, outputs: 8, enlarged: (5, 7)),
    Shape(size: (1, 1), inputs: 6, outputs: 8, enlarged: (1, 2)),
    Shape(images: 2, size: (4, 3), inputs: 4, outputs: 3, kernel: 1),
  ]

  /// The pixel of a picture of `size` that torch's interpolate(size=, mode="nearest") shows at `index` of `target`: the
  /// index times the ratio of sizes, which is f32, rounded down.
  private func nearest(_ index: Int, _ size: Int, _ target: Int) -> Int {
    min(Int((Float(index) * (Float(size) / Float(target))).rounded(.down)), size - 1)
  }

  /// torch Conv2d(padding: kernel / 2) of the enlarged input, at one place.
  private func convolved(
    _ input: Input, _ dense: DenseMatrix, _ s: Shape, image: Int, y: Int, x: Int, output: Int
  ) -> Products {
    let (height, width) = s.enlarged ?? s.size
    var products = Products()
    for tap in 0..<s.kernel * s.kernel {
      let v = y * s.stride + tap / s.kernel - s.kernel / 2
      let u = x * s.stride + tap % s.kernel - s.kernel / 2
      guard (0..<height).contains(v), (0..<width).contains(u) else { continue }
      let row = (image * s.size.height + nearest(v, s.size.height, height)) * s.size.width
      let pixel = row + nearest(u, s.size.width, width)
      let step = input.step(pixel)
      for i in 0..<s.inputs { products.add(input[pixel, i], dense[output, i, tap], step: step) }
    }
    return products
  }

  @Test("A convolution sees the pixels that torch's sees", arguments: cases)
  func convolution(_ kind: RandomWeights.Kind, exact: Bool) throws {
    for (index, s) in Self.shapes.enumerated() {
      let run = try makeRun(pools[index % 3])
      let weights = RandomWeights(kind)
      let layer = try Convolution(Weights(weights, "layer"), s.inputs, s.outputs, kernel: s.kernel, stride: s.stride)
      let dense = try #require(weights.matrices["layer"])
      let input = Input(s.images * s.size.height * s.size.width, s.inputs, exact: exact, seed: index)
      let x = run.map(s.images, s.size.height, s.size.width, s.inputs, input.values)
      let (height, width) = s.output
      let out = run.featureMap(s.images, height, width, s.outputs)
      var generator = Generator(index)
      let added = generator.floats(out.tokens.count)
      out.tokens.base.update(from: added, count: added.count)
      let residual = Residual.allCases[index % 3]
      let other = residual == .separate ? run.map(s.images, height, width, s.outputs, added) : out
      layer(x, into: out, enlarged: s.enlarged, adding: residual == .none ? nil : other, run)
      var expected: [Bounded] = []
      for place in 0..<s.images * height * width {
        let (image, pixel) = place.quotientAndRemainder(dividingBy: height * width)
        for o in 0..<s.outputs {
          expected.append(
            convolved(input, dense, s, image: image, y: pixel / width, x: pixel % width, output: o).bounded(
              kind, taps: s.kernel * s.kernel, isExact: exact, plus: dense.bias[o],
              residual == .none ? 0 : added[place * s.outputs + o]))
        }
      }
      expectWithin(out.tokens.elements, expected, "\(kind) \(s) \(residual)")
    }
  }

  @Test("BEATs' positions are convolved group by group", arguments: cases)
  func groupedConvolution(_ kind: RandomWeights.Kind, exact: Bool) throws {
    for (tokens, width, groups, taps) in [(40, 64, 16, 128), (9, 96, 2, 6), (21, 24, 4, 5), (3, 20, 2, 16)] {
      let run = try makeRun()
      let shape = MatrixShape(outputs: width, inputs: width / groups, taps: taps, groups: groups)
      let weights = RandomWeights(kind)
      let packed = weights.matrix("layer", shape, .quantized, bias: true)
      let dense = try #require(weights.matrices["layer"])
      let input = Input(tokens, width, exact: exact, seed: taps)
      let out = run.blank(tokens, width)
      run.multiply(
        run.activations(.matrix(run.matrix(tokens, width, input.values)), for: packed), by: packed,
        through: Window(kernel: .init(1, taps), stride: 1, input: .init(1, tokens), output: .init(1, tokens)),
        into: out)
      let perGroup = width / groups
      var expected: [Bounded] = []
      for t in 0..<tokens {
        for o in 0..<width {
          var products = Products()
          for tap in 0..<taps where (0..<tokens).contains(t + tap - taps / 2) {
            let source = t + tap - taps / 2
            for i in 0..<perGroup {
              products.add(input[source, o / perGroup * perGroup + i], dense[o, i, tap], step: input.step(source))
            }
          }
          expected.append(products.bounded(kind, taps: taps, isExact: exact, plus: dense.bias[o]))
        }
      }
      expectWithin(out.elements, expected, "\(kind) \(width) in \(groups) groups, \(taps) taps")
    }
  }

  /// One output of the second half of a guided product: the first half's, and what the difference of the inputs adds.
  private func guided(
    _ first: Input, _ second: Input, _ places: [(row: Int, tap: Int)], _ dense: DenseMatrix, output: Int,
    plus added: Float
  ) -> Bounded {
    var base = Products()
    var change = Products()
    for (row, tap) in places {
      let differences = (0..<first.columns).map { second[row, $0] - first[row, $0] }
      let step = Double(max(0, differences.max() ?? 0)) - Double(min(0, differences.min() ?? 0))
      for i in 0..<first.columns {
        base.add(first[row, i], dense[output, i, tap], step: first.step(row))
        change.add(differences[i], dense[output, i, tap], step: step / 255)
      }
    }
    let taps = dense.shape.taps
    let (a, b) = (
      base.bounded(.int8, taps: taps, isExact: false, plus: dense.bias[output], added),
      change.bounded(.int8, taps: taps, isExact: false)
    )
    return Bounded(
      value: a.value + b.value, error: a.error + b.error + 0x1p-23 * (a.value.magnitude + b.value.magnitude))
  }

  @Test(
    "Of the two halves of guidance, what tells them apart is not rounded away",
    arguments: [RandomWeights.Kind.int8, .int8Pairs, .int8Fours], Residual.allCases)
  func guidedProducts(_ kind: RandomWeights.Kind, _ residual: Residual) throws {
    let (height, width, inputs, outputs) = (7, 6, 9, 20)
    let rows = height * width
    for kernel in [1, 3] {
      for distance in [Float(1), 1e-3, 0] {
        let weights = RandomWeights(kind)
        let layer = try Convolution(Weights(weights, "layer"), inputs, outputs, kernel: kernel)
        let dense = try #require(weights.matrices["layer"])
        let first = Input(rows, inputs, exact: false, seed: kernel)
        var second = first
        var generator = Generator(kernel)
        second.values = zip(first.values, generator.floats(rows * inputs)).map { $0 + distance * $1 }
        let run = try makeRun(pools[kernel % 3], isGuided: true)
        let out = run.featureMap(2, height, width, outputs)
        let added = generator.floats(out.tokens.count)
        out.tokens.base.update(from: added, count: added.count)
        let other = residual == .separate ? run.map(2, height, width, outputs, added) : out
        layer(
          run.map(2, height, width, inputs, first.values + second.values), into: out,
          adding: residual == .none ? nil : other, run)
        var expected: [Bounded] = []
        for (half, place) in (0..<2).flatMap({ half in (0..<rows).map { (half, $0) } }) {
          let places = (0..<kernel * kernel).compactMap { tap -> (row: Int, tap: Int)? in
            let v = place / width + tap / kernel - kernel / 2
            let u = place % width + tap % kernel - kernel / 2
            return (0..<height).contains(v) && (0..<width).contains(u) ? (v * width + u, tap) : nil
          }
          for o in 0..<outputs {
            let plus = residual == .none ? 0 : added[(half * rows + place) * outputs + o]
            expected.append(
              guided(first, half == 0 ? first : second, places, dense, output: o, plus: plus))
          }
        }
        expectWithin(out.tokens.elements, expected, "\(kernel) x \(kernel), \(distance) apart, \(residual)")
        try expectChange(out.tokens.elements, expected, residual, distance)
      }
    }
  }

  /// The distance of the halves' results is far more exact than the results themselves: guidance multiplies it.
  private func expectChange(_ found: [Float], _ expected: [Bounded], _ residual: Residual, _ distance: Float) throws {
    guard residual == .none else { return }
    let half = found.count / 2
    for i in 0..<half {
      let change = Double(found[half + i]) - Double(found[i])
      let exact = expected[half + i].value - expected[i].value
      // Steps of 2 / 255 of the distance at each of up to 81 inputs of weights up to 0.25, and rounding.
      let bound = 81 * Double(distance) / 255 * 0.25 + 0x1p-21 * (expected[i].value.magnitude + 100)
      #expect((change - exact).magnitude <= bound, "\(distance) apart")
    }
  }

  private func codes(_ x: Activations) throws -> (values: [UInt8], scales: [Float], zeros: [Int32]) {
    guard case .quantized(let rows) = x else {
      Issue.record("not quantised")
      return ([], [], [])
    }
    let values = (0..<rows.rows).flatMap { row in (0..<rows.columns).map { rows.values[row * rows.stride + $0] } }
    return (values, (0..<rows.rows).map { rows.scale[$0] }, (0..<rows.rows).map { rows.zero[$0] })
  }

  private func expectSameCodes(_ found: Activations, _ expected: Activations, _ what: String) throws {
    let (found, expected) = (try codes(found), try codes(expected))
    #expect(found.values == expected.values && found.zeros == expected.zeros, "\(what)")
    expectSameBits(found.scales, expected.scales, "scales, \(what)")
  }

  /// Fewer columns than are gated at once, as many, some runs and a rest, and no whole panels.
  @Test(
    "A feed-forward gated some columns at a time is the one gated as a whole", arguments: [24, 128, 328, 36],
    KernelTable.available)
  func gatedColumns(width: Int, _ kernels: KernelTable) throws {
    for kind in RandomWeights.Kind.allCases where kind.isInt8 { try gateColumns(width, kind, kernels) }
  }

  private func gateColumns(_ width: Int, _ kind: RandomWeights.Kind, _ kernels: KernelTable) throws {
    let (rows, inputs) = (42, 16)
    for (isGuided, threads) in [(false, 1), (false, 3), (true, 2)] {
      let w = Weights(RandomWeights(kind), "layer")
      let feedIn = try Linear(w / "in", inputs, 2 * width)
      let feedOut = try Linear(w / "out", width, inputs, bias: false)
      let run = try makeRun(pools[threads - 1], kernels: kernels, isGuided: isGuided)
      var generator = Generator(width)
      let x = run.matrix(rows, inputs, generator.floats(rows * inputs))
      let input = run.activations(.matrix(x), for: feedIn.weights)
      let both = run.matrix(rows, 2 * width)
      run.multiply(input, by: feedIn.weights, through: .same(rows: rows), into: both)
      let gated = run.matrix(rows, width)
      run.gatedGELU(both, into: gated)
      try expectSameCodes(
        run.multiplyGated(input, by: feedIn.weights, for: feedOut.weights),
        run.activations(.matrix(gated), for: feedOut.weights),
        "\(kernels.name), \(kind), \(width) columns, \(threads) threads")
    }
  }

  /// One block of queries, some, and numbers that do not divide; images that are paired and images that are not.
  @Test("A text is attended to block by block as it is at once", arguments: [5, 21, 300], KernelTable.available)
  func attentionInBlocks(queries: Int, _ kernels: KernelTable) throws {
    let (inputs, width, heads, keys) = (12, 40, 2, 77)
    for kind in RandomWeights.Kind.allCases {
      for (isGuided, images, threads) in [(true, 2, 1), (true, 2, 3), (false, 1, 2), (false, 2, 2)] {
        let w = Weights(RandomWeights(kind), "layer")
        let query = try Linear(w / "q", inputs, width)
        let output = try Linear(w / "out", width, inputs, bias: false)
        let run = try makeRun(pools[threads - 1], kernels: kernels, isGuided: isGuided)
        var generator = Generator(queries)
        let x = run.matrix(images * queries, inputs, generator.floats(images * queries * inputs))
        let k = run.matrix(images * keys, width, generator.floats(images * keys * width))
        let v = run.matrix(images * keys, width, generator.floats(images * keys * width))
        let q = run.matrix(images * queries, width)
        query(x, into: q, run)
        let mixed = run.matrix(like: q)
        run.attend(q, k, v, into: mixed, images: images, heads: heads, isInteger: false)
        let (out, expected) = (run.blank(images * queries, inputs), run.blank(images * queries, inputs))
        output(mixed, into: expected, run)
        let input = run.activations(.matrix(x), for: query.weights)
        output(
          run.attend(input, by: query.weights, to: k, v, images: images, heads: heads, for: output.weights), into: out,
          run)
        expectSameBits(
          out.elements, expected.elements, "\(kernels.name), \(kind), \(images) images, \(threads) threads")
      }
    }
  }

  @Test("Rows that lie there as f16 are quantised to the codes of their floats", arguments: [4, 12, 320, 37])
  func halfRows(columns: Int) throws {
    let rows = 90
    let weights = try Linear(Weights(RandomWeights(.int8), "layer"), columns, 8).weights
    for (isGuided, threads) in [(false, 2), (true, 1), (true, 3)] {
      let run = try makeRun(pools[threads - 1], isGuided: isGuided)
      var generator = Generator(columns)
      let halves = generator.floats(rows * columns, -3...3).map { Float16($0) }
      let stored = run.rows(rows, columns, .float16)
      stored.base.copyMemory(from: halves, byteCount: halves.count * MemoryLayout<Float16>.stride)
      let floats = run.matrix(rows, columns, halves.map(Float.init))
      for taken in [nil, 7..<31] {
        try expectSameCodes(
          run.activations(.rows(stored), rows: taken, for: weights),
          run.activations(.matrix(floats), rows: taken, for: weights), "\(columns) columns, \(threads) threads")
      }
    }
  }

  @Test("The number of threads changes no bit of a layer", arguments: RandomWeights.Kind.allCases)
  func threads(_ kind: RandomWeights.Kind) throws {
    var results: [[Float]] = []
    for pool in pools {
      let run = try makeRun(pool)
      let layer = try Convolution(Weights(RandomWeights(kind), "layer"), 12, 40)
      var generator = Generator(1)
      let out = run.featureMap(2, 13, 9, 40)
      layer(run.map(2, 13, 9, 12, generator.floats(2 * 13 * 9 * 12)), into: out, run)
      let wide = run.matrix(1, 700)
      try Linear(Weights(RandomWeights(kind), "wide"), 40, 700)(out.tokens.rows(3..<4), into: wide, run)
      results.append(out.tokens.elements + wide.elements)
    }
    expectSameBits(results[1], results[0], "2 threads")
    expectSameBits(results[2], results[0], "3 threads")
  }
}
