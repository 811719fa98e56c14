import Kernels
import Models
import Tensors
import WeightFile

/// Sound to picture: BEATs, the token projector, the text encoder, the UNet and the decoder of one weight file.
///
/// Weights stay where the file is mapped. A stage's activations live in an arena that is planned for it and given back
/// before the next stage begins.
public final class Pipeline {
  let file: WeightFile
  let configuration: ModelConfiguration
  let networks: Networks
  let tokenizer: Tokenizer
  let tokenizerData: TokenizerData
  let samplerConfiguration: SamplerConfiguration
  let pool: ThreadPool
  let kernels: KernelTable
  /// Where the time goes, if anybody asks.
  var profile: Profile?

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
    pool = ThreadPool(threads: threads)
  }

  /// The audio token of a sound: f32 [token width].
  public func audioToken(
    of sound: SoundSelection, progress: (Progress) -> Void = { _ in }
  ) throws(AudioTokenError) -> [Float] {
    try encode(waveform(sound, progress), dump: nil, progress)
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
    let token = try token(features.values, tokens: features.tokens, progress)
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
    let width = configuration.beats.featureWidth
    let values = try stage(.beats, progress) { [networks] run, output in
      let input = run.matrix(frames, FilterBank.bins)
      run.serial { input.base.update(from: bank, count: bank.count) }
      let features = run.matrix(tokens, width)
      networks.beats(input, into: features, run)
      run.serial { output = features.elements }
    }
    return Features(values: values, tokens: tokens, bank: bank)
  }

  /// [tokens, feature width] -> [token width]
  func token(
    _ features: [Float], tokens: Int, _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    let (width, tokenWidth) = (configuration.beats.featureWidth, configuration.projector.tokenWidth)
    return try stage(.projector, progress) { [networks] run, output in
      let input = run.matrix(tokens, width)
      run.serial { input.base.update(from: features, count: features.count) }
      let token = run.matrix(1, tokenWidth)
      networks.projector(input, into: token, run)
      run.serial { output = token.elements }
    }
  }

  /// Plans the arena of `body`, runs it there, and gives the arena and the stage's weights back.
  func stage(
    _ step: Step, _ progress: (Progress) -> Void, _ body: (Run, inout [Float]) -> Void
  ) throws(AudioTokenError) -> [Float] {
    progress(Progress(step: step, done: 0, total: 1))
    var output: [Float] = []
    let arena = try arena(for: step) { body($0, &output) }
    body(Run(kernels: kernels, pool: pool, arena: arena, profile: profile), &output)
    release(step)
    progress(Progress(step: step, done: 1, total: 1))
    return output
  }

  /// An arena of exactly the bytes that `body` takes.
  func arena(for step: Step, isGuided: Bool = false, _ body: (Run) -> Void) throws(AudioTokenError) -> Arena {
    let peak = Run.peak(pool: pool, isGuided: isGuided, body)
    guard let arena = Arena(capacity: peak) else {
      throw AudioTokenError(
        .system,
        "The system refuses \(ByteCount.describe(peak)) of memory for the \(step.rawValue) stage, which needs "
          + "them; close other programs or choose a smaller --width and --height.")
    }
    return arena
  }

  /// Which kernels run.
  public var kernelName: String { kernels.name }

  /// Lets the pages of a stage's weights go.
  func release(_ step: Step) { file.release(file.tensors.filter { $0.name.hasPrefix(step.rawValue + ".") }) }
}

extension SamplerChoice {
  init(_ kind: Sampler.Kind) { self = kind == .pndm ? .pndm : .ddim }
  var kind: Sampler.Kind { self == .pndm ? .pndm : .ddim }
}

extension Matrix {
  /// A copy of the elements.
  var elements: [Float] { Array(UnsafeBufferPointer(start: base, count: count)) }
}
