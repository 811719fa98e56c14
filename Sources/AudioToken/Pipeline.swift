import Kernels
import Models
import Tensors
import WeightFile

/// Sound to picture: BEATs, the token projector, the text encoder, the UNet and the decoder of one weight file.
///
/// Weights stay where the file is mapped; no more of them than the plan says are in memory, and never those of two stages.
/// Activations live in one arena, planned to the byte.
public final class Pipeline {
  package let file: WeightFile
  let configuration: ModelConfiguration
  let networks: Networks
  let tokenizer: Tokenizer
  let tokenizerData: TokenizerData
  let samplerConfiguration: SamplerConfiguration
  let pool: ThreadPool
  let kernels: KernelTable
  /// Where the time goes, if anybody asks.
  var profile: Profile?
  /// Called all the time while a network runs, between its layers.
  package var observer: (() -> Void)?
  /// Compares quantised products with what they stand for, if anybody asks.
  package var productObserver: (any ProductObserver)?
  /// What the stages may take.
  var memory: MemoryPlan?
  /// Kept from one stage to the next: clean pages are not free.
  private(set) var kept: Arena?

  /// The side in pixels of the pictures that the model was trained on.
  public let nativeSize: Int
  public let defaultSampler: SamplerChoice
  /// Names the model: a hash over all its settings and checksums.
  public let contentHash: String

  /// Maps the file and checks every tensor's type and shape; reads no weights.
  /// - Parameters:
  ///   - threads: at least 1.
  ///   - kernels: the name of a kernel table, nil for the fastest that this processor runs.
  public init(model path: String, threads: Int, kernels name: String? = nil) throws(AudioTokenError) {
    guard (1...256).contains(threads) else {
      throw AudioTokenError(
        .usage, "--threads is \(threads), where 1 to 256 is expected; leave it out to use all cores.")
    }
    kernels = try rendering(AudioTokenError.init(_:)) { () throws(KernelChoiceError) in
      try KernelTable.best(named: name)
    }
    let file = try rendering(AudioTokenError.init(_:)) { () throws(WeightFileError) in try WeightFile(path: path) }
    self.file = file
    configuration = try rendering(AudioTokenError.init(_:)) { () throws(WeightFileError) in
      try ModelConfiguration(file.metadata)
    }
    let text = configuration.text
    networks = try rendering(AudioTokenError.init(_:)) { [configuration] () throws(WeightError) in
      try Networks(MappedWeights(file), configuration)
    }
    (tokenizerData, samplerConfiguration, defaultSampler, nativeSize) = try rendering(AudioTokenError.init(_:)) {
      () throws(WeightFileError) in
      let data = try TokenizerData(file.metadata, vocabulary: text.vocabulary)
      guard data.length <= text.positions else {
        throw file.metadata.refusal(
          "audiotoken.tokenizer.length", found: String(data.length), expected: "at most \(text.positions)")
      }
      return (
        data, try SamplerConfiguration(file.metadata),
        SamplerChoice(try SamplerConfiguration.kind(file.metadata)),
        try file.metadata.integer(ModelFile.Key.nativeSize)
      )
    }
    tokenizer = try rendering(AudioTokenError.init(_:)) { [tokenizerData] () throws(TokenizerError) in
      try Tokenizer(tokenizerData)
    }
    contentHash = file.contentHash
    file.releaseHeader()
    pool = ThreadPool(threads: threads)
  }

  /// The audio token of a sound: f32 [token width].
  public func audioToken(
    of sound: SoundSelection, progress: (Progress) -> Void = { _ in }
  ) throws(AudioTokenError) -> [Float] {
    memory = try memoryPlan(nil, limit: nil)
    return try encode(waveform(sound, progress), dump: nil, progress)
  }

  // MARK: Stages

  func waveform(_ sound: SoundSelection, _ progress: (Progress) -> Void) throws(AudioTokenError) -> [Float] {
    progress(Progress(step: .audio, done: 0, total: 1))
    let waveform = try rendering(AudioTokenError.init(_:)) { () throws(AudioError) in
      try Waveform.prepare(path: sound.path, start: sound.start, seconds: sound.seconds)
    }
    progress(Progress(step: .audio, done: 1, total: 1))
    return waveform
  }

  /// Filter bank, BEATs and the projector: f32 [160,000] -> [token width]
  func encode(
    _ waveform: [Float], dump: TensorDump?, _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    let features = try features(waveform, progress)
    let token = try token(features.values, progress)
    try dump?.write("waveform", waveform, [waveform.count])
    try dump?.write("fbank", features.bank, [features.bank.count / FilterBank.bins, FilterBank.bins])
    try dump?.write("audio_features", features.values, [features.tokens, configuration.beats.featureWidth])
    try dump?.write("audio_token", token, [token.count])
    return token
  }

  /// What BEATs says of a sound, [tokens, feature width], and the filter bank that it listened to.
  struct Features {
    let values: [Float]
    let tokens: Int
    let bank: [Float]
  }

  func features(_ waveform: [Float], _ progress: (Progress) -> Void) throws(AudioTokenError) -> Features {
    let bank = FilterBank()(waveform)
    let frames = bank.count / FilterBank.bins
    let tokens = configuration.beats.tokens(frames: frames, bins: FilterBank.bins)
    let values = try stage(.beats, progress) { self.hear($0, bank: bank) }
    return Features(values: values, tokens: tokens, bank: bank)
  }

  @discardableResult
  func hear(_ run: Run, bank: [Float]) -> [Float] {
    let input = run.matrix(FilterBank.frames(samples: Waveform.count), FilterBank.bins)
    run.serial { input.base.update(from: bank, count: bank.count) }
    let features = run.matrix(audioTokens, configuration.beats.featureWidth)
    networks.beats(input, into: features, run)
    return run.isPlanning ? [] : features.elements
  }

  /// Of a sound.
  private var audioTokens: Int {
    configuration.beats.tokens(frames: FilterBank.frames(samples: Waveform.count), bins: FilterBank.bins)
  }

  /// Of the features of a sound, and of the filter bank that they come from.
  var featureBytes: Int {
    let bank = FilterBank.frames(samples: Waveform.count) * FilterBank.bins
    return (bank + audioTokens * configuration.beats.featureWidth) * MemoryLayout<Float>.stride
  }

  /// [tokens, feature width] -> [token width]
  func token(
    _ features: [Float], _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    try stage(.projector, progress) { self.project($0, features: features) }
  }

  @discardableResult
  func project(_ run: Run, features: [Float]) -> [Float] {
    let input = run.matrix(audioTokens, configuration.beats.featureWidth)
    run.serial { input.base.update(from: features, count: features.count) }
    let token = run.matrix(1, configuration.projector.tokenWidth)
    networks.projector(input, into: token, run)
    return run.isPlanning ? [] : token.elements
  }

  /// Plans the arena of `body`, runs it there, and gives the stage's weights back.
  func stage(
    _ step: Step, _ progress: (Progress) -> Void, _ body: (Run) -> [Float]
  ) throws(AudioTokenError) -> [Float] {
    progress(Progress(step: step, done: 0, total: 1))
    let arena = try arena(for: step) { _ = body($0) }
    let output = body(
      Run(
        kernels: kernels, pool: pool, arena: arena, weights: window(step), profile: profile, observer: productObserver))
    arenaPeak = arena.peak
    release(step)
    progress(Progress(step: step, done: 1, total: 1))
    return output
  }

  /// An empty arena of at least the bytes that `body` takes: the one of the stages before, where it is large enough.
  func arena(for step: Step, isGuided: Bool = false, _ body: (Run) -> Void) throws(AudioTokenError) -> Arena {
    let peak = Run.peak(pool: pool, isGuided: isGuided, body)
    if let kept, kept.capacity >= peak {
      kept.restart()
      return kept
    }
    kept = nil
    let whole = max(peak, memory?.stages.map(\.arena).max() ?? 0)
    guard let arena = Arena(capacity: whole) else {
      throw AudioTokenError(
        .system,
        "The system refuses \(ByteCount.describe(whole)) of memory for the stages from \(step.rawValue) on, which need "
          + "them; close other programs or choose a smaller --width and --height.")
    }
    kept = arena
    return arena
  }

  /// What the last stage took of its arena.
  package internal(set) var arenaPeak = 0

  /// Gives the activations' memory back.
  func releaseArena() { kept = nil }

  /// Which kernels run.
  public var kernelName: String { kernels.name }

  /// Lets the pages of a stage's weights go.
  func release(_ step: Step) { file.release(tensors(of: step)) }
}

extension SamplerChoice {
  init(_ kind: Sampler.Kind) { self = kind == .pndm ? .pndm : .ddim }
  var kind: Sampler.Kind { self == .pndm ? .pndm : .ddim }
}

extension Matrix {
  /// A copy of the elements.
  var elements: [Float] { Array(UnsafeBufferPointer(start: base, count: count)) }
}
