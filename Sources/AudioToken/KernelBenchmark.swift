import CKernels
import Kernels
import Tensors

/// Rates of the kernels at the shapes of Stable Diffusion 1.x, beside what the processor's instructions allow.
package struct KernelBenchmark {
  package struct Shape: Sendable {
    package let name: String
    let rows: Int
    let inputs: Int
    let outputs: Int
    /// The side of a square picture for a 3x3 convolution; nil for a linear layer.
    let side: Int?
  }

  package struct Rate: Sendable {
    package let name: String
    /// Multiply-accumulates a second, and of the ceiling measured right before and after: such that their ratio is the
    /// median of the repetitions'.
    package let rate: Double
    package let ceiling: Double?
    /// The greatest of each that any repetition had, not always the same one: near what they are where no other program,
    /// or neighbour on a shared processor, disturbs. A neighbour takes more from a kernel, which loads and stores, than
    /// from instructions alone.
    package let bestRate: Double
    package let bestCeiling: Double?
  }

  package static let shapes = [
    Shape(name: "linear 8192 x 320 -> 320", rows: 8192, inputs: 320, outputs: 320, side: nil),
    Shape(name: "linear 8192 x 320 -> 2560", rows: 8192, inputs: 320, outputs: 2560, side: nil),
    Shape(name: "linear 8192 x 1280 -> 320", rows: 8192, inputs: 1280, outputs: 320, side: nil),
    Shape(name: "linear 2048 x 640 -> 5120", rows: 2048, inputs: 640, outputs: 5120, side: nil),
    Shape(name: "linear 2048 x 2560 -> 640", rows: 2048, inputs: 2560, outputs: 640, side: nil),
    Shape(name: "linear 512 x 1280 -> 10240", rows: 512, inputs: 1280, outputs: 10_240, side: nil),
    Shape(name: "linear 512 x 5120 -> 1280", rows: 512, inputs: 5120, outputs: 1280, side: nil),
    Shape(name: "linear 2 x 1280 -> 1280", rows: 2, inputs: 1280, outputs: 1280, side: nil),
    Shape(name: "conv 3x3 64 x 64 x 320 -> 320", rows: 8192, inputs: 320, outputs: 320, side: 64),
    Shape(name: "conv 3x3 64 x 64 x 640 -> 320", rows: 8192, inputs: 640, outputs: 320, side: 64),
    Shape(name: "conv 3x3 32 x 32 x 640 -> 640", rows: 2048, inputs: 640, outputs: 640, side: 32),
    Shape(name: "conv 3x3 16 x 16 x 1280 -> 1280", rows: 512, inputs: 1280, outputs: 1280, side: 16),
    Shape(name: "conv 3x3 16 x 16 x 2560 -> 1280", rows: 512, inputs: 2560, outputs: 1280, side: 16),
  ]

  private let kernels: KernelTable
  private let pool: ThreadPool
  private let repetitions: Int

  package init(_ pipelineKernels: String?, threads: Int, repetitions: Int) throws(AudioTokenError) {
    kernels = try rendering(AudioTokenError.init(_:)) { () throws(KernelChoiceError) in
      try KernelTable.best(named: pipelineKernels)
    }
    pool = ThreadPool(threads: threads)
    self.repetitions = repetitions
  }

  package var kernelName: String { kernels.name }

  /// Seconds that it takes to hand a line of the cache from one core to another and back: more where the two have no cache
  /// in common, as some virtual machines put them. What one has read the other then writes the more slowly.
  package static func handover() -> Double { at_handover_seconds() }

  /// The convolutions, as files have them whose convolutions are transformed. Rates count the products that Winograd's
  /// algorithm replaces, and so does the ceiling, which it may exceed: it is that of taking them one by one.
  package func winogradRates() throws(AudioTokenError) -> [Rate] {
    var rates: [Rate] = []
    for shape in Self.shapes where shape.side != nil {
      rates.append(try rate(shape, .full, isTransformed: true))
    }
    return rates
  }

  /// The int8 product at one shape, with weights of one form and results of f16, as quantised models keep them.
  package func rate(_ shape: Shape, _ form: CodeForm, isTransformed: Bool = false) throws(AudioTokenError) -> Rate {
    let taps = shape.side == nil ? 1 : 9
    let matrix = MatrixShape(outputs: shape.outputs, inputs: shape.inputs, taps: taps)
    let weights = RandomMatrix(matrix, form, isTransformed: isTransformed)
    let window: Window =
      if let side = shape.side {
        Window(kernel: .init(3, 3), stride: 1, input: .init(side, side), output: .init(side, side))
      } else {
        .same(rows: shape.rows)
      }
    let body = { (run: Run) in
      let x = run.matrix(shape.rows, shape.inputs)
      run.serial { for i in 0..<x.count { x.base[i] = Float(i &* 7919 % 255) } }
      let quantized = Activations.quantized(run.quantize(.matrix(x)))
      let out = run.rows(shape.rows, shape.outputs, .float16)
      return { run.multiply(quantized, by: weights.packed, through: window, into: out) }
    }
    return try measure(
      shape.name, products: shape.rows * shape.inputs * shape.outputs * taps,
      ceiling: kernels.ceilings.map { ceilings in
        switch form {
        case .full: ceilings.int8
        case .pairs: ceilings.int8Pairs
        case .fours: ceilings.int8Fours
        }
      }, body)
  }

  /// Self-attention of eight heads on one image, of f16 as in quantised models.
  package func attentionRate(tokens: Int, headWidth: Int) throws(AudioTokenError) -> Rate {
    let columns = 8 * headWidth
    return try measure(
      "attention \(tokens) x \(tokens), 8 heads of \(headWidth)", products: 2 * tokens * tokens * columns,
      ceiling: kernels.ceilings?.attention
    ) { run in
      let x = (0..<3).map { _ in run.rows(tokens, columns, .float16) }
      run.serial {
        var generator = NoiseGenerator(seed: 1)
        for x in x {
          let halves = generator.normal(count: tokens * columns).map { Oracle.narrow($0) }
          x.base.assumingMemoryBound(to: UInt16.self).update(from: halves, count: halves.count)
        }
      }
      let out = run.rows(tokens, columns, .float16)
      return { run.attend(x[0], x[1], x[2], into: out, images: 1, heads: 8, isInteger: true) }
    }
  }

  /// Takes the ceiling and the kernel in turn, several times, and gives the median of their ratios, and the best of each.
  private func measure(
    _ name: String, products: Int, ceiling: KernelTable.Ceiling?, _ prepare: (Run) -> () -> Void
  ) throws(AudioTokenError) -> Rate {
    let peak = Run.peak(pool: pool) { prepare($0)() }
    guard let arena = Arena(capacity: peak) else { throw AudioTokenError(.system, "The system refuses memory.") }
    let kernel = prepare(Run(kernels: kernels, pool: pool, arena: arena))
    // Until memory is there and all cores are at their speed.
    let start = monotonicSeconds()
    repeat { kernel() } while monotonicSeconds() - start < 0.05
    var rates: [Double] = []
    var ceilings: [Double] = []
    var ratios: [Double] = []
    for _ in 0..<repetitions {
      let before = ceiling.map(self.rate(of:))
      let rate = Double(products) / seconds(kernel)
      rates.append(rate)
      if let before, let after = ceiling.map(self.rate(of:)) {
        ceilings += [before, after]
        ratios.append(rate / ((before + after) / 2))
      }
    }
    let rate = Benchmark.median(rates)
    return Rate(
      name: name, rate: rate, ceiling: ratios.isEmpty ? nil : rate / Benchmark.median(ratios),
      bestRate: rates.max() ?? rate, bestCeiling: ceilings.max())
  }

  /// In pieces, as kernels work: where one core is slower for a while, the others take more of them.
  private func rate(of ceiling: KernelTable.Ceiling) -> Double {
    let pieces = pool.threads * 100
    let iterations = 4000
    let time = seconds { pool.parallel(pieces) { for _ in $0 { _ = ceiling(iterations) } } }
    return Double(pieces * iterations * Int(AT_CEILING_PRODUCTS)) / time
  }

  private func seconds(_ body: () -> Void) -> Double {
    let start = monotonicSeconds()
    body()
    return monotonicSeconds() - start
  }
}

/// An int8 matrix of numbers that mean nothing.
private final class RandomMatrix {
  let packed: PackedMatrix
  private let codes: UnsafeMutablePointer<Int8>
  private let scale: UnsafeMutablePointer<Float>
  private let sum: UnsafeMutablePointer<Int32>

  init(_ shape: MatrixShape, _ form: CodeForm, isTransformed: Bool) {
    let count = shape.paddedOutputs * shape.taps * shape.paddedInputs
    codes = .allocate(capacity: count)
    for i in 0..<count { codes[i] = Int8(i &* 31 % 63 - 31) }
    scale = .allocate(capacity: shape.paddedOutputs)
    scale.initialize(repeating: 1, count: shape.paddedOutputs)
    sum = .allocate(capacity: shape.taps * shape.paddedOutputs)
    sum.initialize(repeating: 0, count: shape.taps * shape.paddedOutputs)
    packed = PackedMatrix(
      elements: .int8(codes, scale: scale, sum: sum, form), shape: shape, bias: nil, isTransformed: isTransformed)
  }

  deinit {
    codes.deallocate()
    scale.deallocate()
    sum.deallocate()
  }
}
