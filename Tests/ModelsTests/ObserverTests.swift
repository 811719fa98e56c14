import Kernels
import Tensors
import Testing

@testable import Models

/// What a comparison of layers reports is what the layers do.
@Suite struct ObserverTests {
  /// Answers with floats, and remembers what it is told.
  private final class Recorder: ProductObserver {
    let originals: [UnsafeRawPointer: PackedMatrix]
    var signal = 0.0
    var noise = 0.0
    var calls = 0

    init(_ originals: [(PackedMatrix, PackedMatrix)]) {
      self.originals = Dictionary(
        uniqueKeysWithValues: originals.compactMap { pair in pair.0.bytes.baseAddress.map { ($0, pair.1) } })
    }

    func original(of weights: PackedMatrix) -> PackedMatrix? { weights.bytes.baseAddress.flatMap { originals[$0] } }

    func note(_ weights: PackedMatrix, signal: Double, noise: Double) {
      self.signal += signal
      self.noise += noise
      calls += 1
    }
  }

  /// What the codes of an int8 matrix stand for, times `factor`. Never freed, as the weights.
  private func floats(of name: String, in weights: RandomWeights, times factor: Float = 1) throws -> PackedMatrix {
    let dense = try #require(weights.matrices[name])
    let values = Layout.floats(dense.values.map { factor * $0 }, dense.shape)
    let memory = UnsafeMutablePointer<Float>.allocate(capacity: values.count)
    memory.initialize(from: values, count: values.count)
    return PackedMatrix(elements: .float32(UnsafePointer(memory)), shape: dense.shape, bias: nil)
  }

  private func makeRun(_ observer: Recorder?, isGuided: Bool = false, bandBytes: Int = Run.defaultBandBytes) throws
    -> Run
  {
    let arena = try #require(Arena(capacity: 64 << 20))
    return Run(
      kernels: try KernelTable.best(), pool: pools[1], arena: arena, isGuided: isGuided, bandBytes: bandBytes,
      observer: observer)
  }

  private func energies(_ found: [Float], _ exact: [Float]) -> (signal: Double, noise: Double) {
    var (signal, noise) = (0.0, 0.0)
    for (found, exact) in zip(found, exact) {
      let difference = Double(found) - Double(exact)
      signal += Double(exact) * Double(exact)
      noise += difference * difference
    }
    return (signal, noise)
  }

  private func expectClose(
    _ found: Double, _ expected: Double, _ what: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(expected > 0, "\(what)", sourceLocation: sourceLocation)
    #expect(abs(found / expected - 1) < 1e-3, "\(what): \(found), \(expected)", sourceLocation: sourceLocation)
  }

  @Test("The reported error of a linear layer is that of its output", arguments: [false, true])
  func linear(isGuided: Bool) throws {
    let (rows, inputs, outputs) = (50, 70, 20)
    // The same names give the same numbers, here with other scales: what is compared need not be close.
    let quantised = try Linear(Weights(RandomWeights(.int8), "layer"), inputs, outputs, bias: false)
    let floats = try Linear(Weights(RandomWeights(.float32), "layer"), inputs, outputs, bias: false)
    var generator = Generator(1)
    let values = generator.floats(rows * inputs)
    let recorder = Recorder([(quantised.weights, floats.weights)])
    var results: [[Float]] = []
    for (layer, observer) in [(quantised, recorder), (quantised, nil), (floats, recorder)] {
      let run = try makeRun(observer, isGuided: isGuided)
      let out = run.blank(rows, outputs)
      layer(run.matrix(rows, inputs, values), into: out, run)
      results.append(out.elements)
    }
    expectSameBits(results[0], results[1], "an observed layer")
    #expect(recorder.calls == 1)
    let expected = energies(results[0], results[2])
    expectClose(recorder.signal, expected.signal, "signal")
    expectClose(recorder.noise, expected.noise, "noise")
  }

  @Test("The reported error of a convolution is that of its output, in bands and on padding", arguments: [1, 2])
  func convolution(stride: Int) throws {
    let (height, width, inputs, outputs) = (7, 9, 8, 12)
    let quantised = try Convolution(Weights(RandomWeights(.int8), "layer"), inputs, outputs, stride: stride)
    let floats = try Convolution(Weights(RandomWeights(.float32), "layer"), inputs, outputs, stride: stride)
    var generator = Generator(2)
    let values = generator.floats(2 * height * width * inputs)
    for (isGuided, bandBytes) in [(false, Run.defaultBandBytes), (true, Run.defaultBandBytes), (true, 600)] {
      let recorder = Recorder([(quantised.weights, floats.weights)])
      var results: [[Float]] = []
      for (layer, observer) in [(quantised, recorder), (floats, nil)] {
        let run = try makeRun(observer, isGuided: isGuided, bandBytes: bandBytes)
        let out = run.featureMap(2, (height + stride - 1) / stride, (width + stride - 1) / stride, outputs)
        // What is added, and a bias, are not the layer's error.
        let bias = run.vector(16)
        bias.base.update(repeating: 0, count: 16)
        layer(run.map(2, height, width, inputs, values), into: out, bias: UnsafePointer(bias.base), run)
        results.append(out.tokens.elements)
      }
      #expect(bandBytes == 600 ? recorder.calls > 1 : recorder.calls == 1)
      let expected = energies(results[0], results[1])
      expectClose(recorder.signal, expected.signal, "signal, \(bandBytes)")
      expectClose(recorder.noise, expected.noise, "noise, \(bandBytes)")
    }
  }

  @Test("Both products of a gated feed-forward are reported, each with its own input")
  func gated() throws {
    let (rows, width) = (24, 16)
    let weights = RandomWeights(.int8)
    let w = Weights(weights, "layer")
    let feedIn = try Linear(w / "in", width, 8 * width)
    let feedOut = try Linear(w / "out", 4 * width, width, bias: false)
    var generator = Generator(3)
    let x = generator.floats(rows * width)
    for (name, layer) in [("layer.in", feedIn), ("layer.out", feedOut)] {
      let recorder = Recorder([(layer.weights, try floats(of: name, in: weights))])
      let run = try makeRun(recorder)
      let out = run.blank(rows, width)
      let input = run.activations(.matrix(run.matrix(rows, width, x)), for: feedIn.weights)
      let gated = run.multiplyGated(input, by: feedIn.weights, for: feedOut.weights)
      feedOut(gated, into: out, run)
      #expect(recorder.calls == 1)
      #expect(recorder.signal > 0)
      let error = (recorder.noise / recorder.signal).squareRoot()
      // The weights are exact here. Inputs that are rounded to 255 steps are off by a step / sqrt(12) or so, of values of
      // about a third of the range: 1/255/sqrt(12)*3 = 0.3 %, within a factor of ten.
      #expect(error > 3e-4 && error < 0.03, "\(name): \(error)")
    }
  }

  @Test("Weights that are wrong by a factor are reported with that error")
  func factor() throws {
    let weights = RandomWeights(.int8)
    let layer = try Linear(Weights(weights, "layer"), 12, 8, bias: false)
    let recorder = Recorder([(layer.weights, try floats(of: "layer", in: weights, times: 2))])
    let run = try makeRun(recorder)
    // Many rows, so that no more than some are compared; of integers that are codes themselves.
    var rows: [Float] = []
    for index in 0..<1000 * 12 {
      let column = index % 12
      let code = (index * 37 + index / 12) % 256
      rows.append(column == 0 ? 0 : column == 1 ? 255 : Float(code))
    }
    layer(run.matrix(1000, 12, rows), into: run.blank(1000, 8), run)
    #expect(recorder.calls == 1)
    #expect(abs((recorder.noise / recorder.signal).squareRoot() - 0.5) < 1e-5)
  }
}
