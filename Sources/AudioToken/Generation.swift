import Kernels
import Models
import Tensors
import WeightFile

extension Pipeline {
  /// Makes a picture from a sound. Everything that can be refused is refused before the first stage runs.
  /// - Parameter progress: called on this thread.
  public func generate(
    from sound: SoundSelection, settings: GenerationSettings, progress: (Progress) -> Void = { _ in }
  ) throws(AudioTokenError) -> Picture {
    try generate(from: sound, settings: settings, dump: nil, progress: progress)
  }

  package func generate(
    from sound: SoundSelection, settings: GenerationSettings, dump: TensorDump?, progress: (Progress) -> Void
  ) throws(AudioTokenError) -> Picture {
    let plan = try plan(settings)
    memory = try memoryPlan(plan, limit: settings.maxRAM)
    let sound = try listen(to: sound, dump, progress)
    let context = try context(plan, sound.token, dump, progress)
    return try draw(plan, settings, context, sound, dump, progress)
  }

  /// What a picture needs of a sound.
  struct HeardSound {
    /// [token width]
    let token: [Float]
    /// SHA-256 of the file.
    let hash: String
  }

  func listen(
    to sound: SoundSelection, _ dump: TensorDump?, _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> HeardSound {
    let waveform = try waveform(sound, progress)
    let hash = try rendering(AudioTokenError.init(_:)) { () throws(WeightFileError) in
      try SHA256.ofFile(sound.path)
    }
    return HeardSound(token: try encode(waveform, dump: dump, progress), hash: hash)
  }

  /// Text embeddings and noise -> picture
  func draw(
    _ plan: Plan, _ settings: GenerationSettings, _ context: [Float], _ sound: HeardSound, _ dump: TensorDump?,
    _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> Picture {
    var plan = plan
    let latents = try denoise(&plan, context, dump, progress)
    let picture = try decode(plan, latents, progress)
    releaseArena()
    let pixels = picture.map { UInt8(max(0, ($0 * 255).rounded(.toNearestOrEven))) }
    try dump?.write("image", picture, [plan.height, plan.width, 3])
    try dump?.write("image_u8", pixels, [plan.height, plan.width, 3])
    return Picture(
      width: plan.width, height: plan.height, pixels: pixels,
      provenance: provenance(settings, plan, audioHash: sound.hash))
  }

  // MARK: Planning

  /// The settings, checked against the model.
  struct Plan {
    let width: Int
    let height: Int
    let latentHeight: Int
    let latentWidth: Int
    let latentChannels: Int
    /// Token ids of the negative prompt, where guidance uses it, and of the prompt.
    var prompts: [[Int]]
    let guidance: Float
    var seed: UInt64
    let samplerChoice: SamplerChoice
    var sampler: Sampler

    var images: Int { prompts.count }
    var latentCount: Int { latentHeight * latentWidth * latentChannels }
  }

  func plan(_ settings: GenerationSettings) throws(AudioTokenError) -> Plan {
    let scale = configuration.vae.scale
    let width = try side("--width", settings.width ?? nativeSize, multipleOf: scale)
    let height = try side("--height", settings.height ?? nativeSize, multipleOf: scale)
    guard settings.guidance.isFinite, settings.guidance >= 0, settings.guidance <= 1000 else {
      throw AudioTokenError(.usage, "--guidance is \(settings.guidance), where 0 to 1000 is expected; 7.5 is usual.")
    }
    let choice = settings.sampler ?? defaultSampler
    let channels = configuration.unet.latentChannels
    let count = (height / scale) * (width / scale) * channels
    let prompt = try promptIDs(settings.prompt)
    let negative = tokenizer(settings.negativePrompt).ids.map(Int.init)
    return Plan(
      width: width, height: height, latentHeight: height / scale, latentWidth: width / scale, latentChannels: channels,
      prompts: settings.guidance > 1 ? [negative, prompt] : [prompt], guidance: settings.guidance, seed: settings.seed,
      samplerChoice: choice,
      sampler: try rendering(AudioTokenError.init(_:)) { [samplerConfiguration] () throws(SamplerError) in
        try Sampler(choice.kind, samplerConfiguration, steps: settings.steps, count: count)
      })
  }

  private func side(_ option: String, _ value: Int, multipleOf scale: Int) throws(AudioTokenError) -> Int {
    guard (scale...8192).contains(value), value % scale == 0 else {
      let near = min(max(value, scale), 8192) / scale * scale
      throw AudioTokenError(
        .usage, "\(option) is \(value), where a multiple of \(scale) from \(scale) to 8192 is expected; try \(near).")
    }
    return value
  }

  private func promptIDs(_ prompt: String) throws(AudioTokenError) -> [Int] {
    let result = tokenizer(prompt)
    let placeholder = tokenizerData.placeholderText
    guard result.placeholderInText else {
      throw AudioTokenError(
        .usage,
        "The prompt \"\(prompt)\" does not contain \(placeholder), which stands for the sound; write it where the "
          + "sound belongs, as in \"a photo of \(placeholder)\".")
    }
    guard !result.placeholderPositions.isEmpty else {
      throw AudioTokenError(
        .usage,
        "The prompt is \(result.tokensCut) tokens too long and \(placeholder) stands in what is cut off; move "
          + "\(placeholder) to the front or shorten the prompt.")
    }
    return result.ids.map(Int.init)
  }

  // MARK: Stages

  /// Text embeddings of the prompts: [images * tokens, width]
  func context(
    _ plan: Plan, _ token: [Float], _ dump: TensorDump?, _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    let length = plan.prompts[0].count
    let width = configuration.text.width
    let context = try stage(.text, progress) { self.read($0, plan, token: token) }
    guard let dump else { return context }
    try dump.write("token_ids", plan.prompts[plan.images - 1].map(Int64.init), [length])
    try dump.write("prompt_embeddings", Array(context.suffix(length * width)), [length, width])
    if plan.images == 2 {
      try dump.write("negative_embeddings", Array(context.prefix(length * width)), [length, width])
    }
    return context
  }

  @discardableResult
  func read(_ run: Run, _ plan: Plan, token: [Float]) -> [Float] {
    let width = configuration.text.width
    let audio = run.matrix(1, width)
    run.serial { audio.base.update(from: token, count: width) }
    let embeddings = run.matrix(plan.images * plan.prompts[0].count, width)
    networks.text(plan.prompts, placeholder: Int(tokenizerData.placeholder), audioToken: audio, into: embeddings, run)
    return run.isPlanning ? [] : embeddings.elements
  }

  /// The sampling loop: noise -> latents [h, w, channels]
  private func denoise(
    _ plan: inout Plan, _ context: [Float], _ dump: TensorDump?, _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    let calls = plan.sampler.timesteps.count
    progress(Progress(step: .unet, done: 0, total: calls))
    var generator = NoiseGenerator(seed: plan.seed)
    let noise = generator.normal(count: plan.latentCount)
    let shape = [plan.latentChannels, plan.latentHeight, plan.latentWidth]
    try dump?.write("noise", noise, shape)
    var latents = channelLast(noise, plan)
    let step = UNetStep(
      plan: plan, context: context, networks: networks, keepsText: memory?.keepsText ?? false)
    step.arena = try arena(for: .unet, isGuided: plan.images == 2) { step.body($0, latents, timestep: 0) }
    step.weights = window(.unet)
    step.observer = productObserver
    for (call, timestep) in plan.sampler.timesteps.enumerated() {
      let predictions = step(latents, timestep: timestep, kernels: kernels, pool: pool)
      if call == 0 {
        let halves = stride(from: 0, to: predictions.count, by: plan.latentCount).flatMap {
          channelFirst(Array(predictions[$0..<$0 + plan.latentCount]), plan)
        }
        try dump?.write("eps_first", halves, [plan.images] + shape)
      }
      let guided = guide(predictions, plan)
      arenaPeak = step.arena?.peak ?? 0
      plan.sampler.step(call, prediction: guided, latents: &latents)
      if let dump {
        let digits = String(call)
        let name = "latents_" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
        try dump.write(name, channelFirst(latents, plan), shape)
      }
      progress(Progress(step: .unet, done: call + 1, total: calls))
    }
    release(.unet)
    return latents
  }

  /// UNet calls on all prompts at once, so that each weight is read once.
  final class UNetStep {
    private let plan: Plan
    private let context: [Float]
    private let networks: Networks
    private let keepsText: Bool
    /// Of the arena, when keys and values of the text were put there.
    private var restartsOfText: Int?
    var arena: Arena? { didSet { restartsOfText = nil } }
    var weights: WeightWindow?
    var observer: (any ProductObserver)?

    /// - Parameter keepsText: whether keys and values of the text stay in the arena, which then must be this step's alone.
    init(plan: Plan, context: [Float], networks: Networks, keepsText: Bool) {
      self.plan = plan
      self.context = context
      self.networks = networks
      self.keepsText = keepsText
    }

    func callAsFunction(
      _ latents: [Float], timestep: Int, kernels: KernelTable, pool: ThreadPool, profile: Profile? = nil
    ) -> [Float] {
      guard let arena else { preconditionFailure("the step was not planned") }
      defer { arena.release(to: 0) }
      let run = Run(
        kernels: kernels, pool: pool, arena: arena, weights: weights, isGuided: plan.images == 2, profile: profile,
        observer: observer)
      return body(run, latents, timestep: timestep)
    }

    @discardableResult
    func body(_ run: Run, _ latents: [Float], timestep: Int) -> [Float] {
      let tokens = plan.images * plan.prompts[0].count
      // The first of the arena, so that each call finds it in the same place.
      let kept = keepsText ? run.vector(tokens * networks.unet.textColumns) : nil
      let input = run.featureMap(1, plan.latentHeight, plan.latentWidth, plan.latentChannels)
      let text = run.matrix(tokens, networks.unet.contextWidth)
      let output = run.featureMap(plan.images, input.height, input.width, input.channels)
      run.serial {
        input.tokens.base.update(from: latents, count: latents.count)
        text.base.update(from: context, count: context.count)
      }
      // Another stage may have had the arena in between.
      let isThere = restartsOfText == run.arena.restarts
      let attended = kept.map { TextContext(text, keptIn: $0, isThere: isThere) } ?? TextContext(text)
      networks.unet(input, timestep: timestep, context: attended, into: output, run)
      run.serial { restartsOfText = run.arena.restarts }
      return run.isPlanning ? [] : output.tokens.elements
    }
  }

  /// Classifier-free guidance: uncond + guidance (cond - uncond).
  private func guide(_ predictions: [Float], _ plan: Plan) -> [Float] {
    guard plan.images == 2 else { return predictions }
    return (0..<plan.latentCount).map { index in
      let without = predictions[index]
      return without + plan.guidance * (predictions[plan.latentCount + index] - without)
    }
  }

  /// Latents -> picture [height, width, 3] in 0...1
  func decode(
    _ plan: Plan, _ latents: [Float], _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    let isFrugal = memory?.isFrugal ?? false
    return try stage(.vae, progress) { self.draw($0, plan, latents, isFrugal: isFrugal) }
  }

  @discardableResult
  func draw(_ run: Run, _ plan: Plan, _ latents: [Float], isFrugal: Bool) -> [Float] {
    let scaling = Float(configuration.vae.scalingFactor)
    let input = run.featureMap(1, plan.latentHeight, plan.latentWidth, plan.latentChannels)
    run.serial { for (index, value) in latents.enumerated() { input.tokens.base[index] = value / scaling } }
    return networks.vae(input, isFrugal: isFrugal, run) { picture in
      guard !run.isPlanning else { return [] }
      // Room for its copy.
      run.arena.discardUnused(2 * picture.bytes)
      return UnsafeBufferPointer(start: picture.tokens.base, count: picture.tokens.count)
        .map { min(max($0 / 2 + 0.5, 0), 1) }
    }
  }

  /// [channels, h, w] -> [h, w, channels]
  private func channelLast(_ planes: [Float], _ plan: Plan) -> [Float] {
    let (channels, pixels) = (plan.latentChannels, plan.latentHeight * plan.latentWidth)
    return (0..<planes.count).map { planes[$0 % channels * pixels + $0 / channels] }
  }

  /// [h, w, channels] -> [channels, h, w]
  private func channelFirst(_ map: [Float], _ plan: Plan) -> [Float] {
    let (channels, pixels) = (plan.latentChannels, plan.latentHeight * plan.latentWidth)
    return (0..<map.count).map { map[$0 % pixels * channels + $0 / pixels] }
  }

  func provenance(_ settings: GenerationSettings, _ plan: Plan, audioHash: String) -> [(
    key: String, value: String
  )] {
    [
      ("Software", "audiotoken"), ("audiotoken:prompt", settings.prompt),
      ("audiotoken:negative", settings.negativePrompt), ("audiotoken:steps", String(settings.steps)),
      ("audiotoken:guidance", "\(settings.guidance)"), ("audiotoken:sampler", plan.samplerChoice.rawValue),
      ("audiotoken:seed", String(settings.seed)), ("audiotoken:size", "\(plan.width)x\(plan.height)"),
      ("audiotoken:model", contentHash), ("audiotoken:sound", audioHash),
    ]
  }
}
