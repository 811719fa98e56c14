import ArgumentParser
import AudioToken
import WeightFile

extension SamplerChoice: ExpressibleByArgument {}

struct Generate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make a picture from a sound, or a sheet of pictures from several sounds and seeds.",
    discussion: """
      The PNG carries the settings and the hashes of model and sound as text, so that it says how it was made.

      With several sounds or seeds the output is a sheet of pictures: a row for each sound and a column for each seed, in the \
      order in which they are given.
      """)

  @Argument(help: "The weight file.")
  var model: String

  @Argument(help: "The sound, or several: WAV, FLAC, Ogg, MP3 or whatever else libsndfile reads.")
  var sound: [String]

  @Option(name: .shortAndLong, help: "The picture or the sheet to write, a PNG file.")
  var output: String?

  @Option(
    help: ArgumentHelp(
      "A folder to write each picture to as soon as it is there, as SOUND-seedNUMBER.png.", valueName: "folder"))
  var pictures: String?

  @Option(help: "How many pixels of the output a pixel is wide and high, 1 to 32: for small models.")
  var scale = 1

  @Option(help: "The text; <*> stands for the sound.")
  var prompt = GenerationSettings().prompt

  @Option(help: "What the picture should not be.")
  var negative = ""

  @Option(help: "Sampling steps.")
  var steps = 50

  @Option(help: "How strictly to follow the prompt; 1 or less turns guidance off.")
  var guidance: Float = 7.5

  @Option(help: "The sampler: pndm or ddim; the model's own by default.")
  var sampler: SamplerChoice?

  @Option(help: "The seed of the initial noise, 0 by default. Give it several times for several columns.")
  var seed: [UInt64] = []

  @Option(help: "The picture's width in pixels, a multiple of 8; the model's own by default.")
  var width: Int?

  @Option(help: "The picture's height in pixels, a multiple of 8; the model's own by default.")
  var height: Int?

  @OptionGroup var soundOptions: SoundOptions
  @OptionGroup var memoryOptions: MemoryOptions
  @OptionGroup var runOptions: RunOptions

  @Option(help: "A folder to write every stage's tensors to, as .npy files.")
  var dumpTensors: String?

  @Flag(help: "Print what was made, with times and memory, as JSON on standard output.")
  var json = false

  @Flag(help: "Show no progress.")
  var quiet = false

  func run() throws {
    try check()
    if sound.count == 1, seeds.count == 1, scale == 1, pictures == nil {
      try makeOne(sound[0])
    } else {
      try GridRun(self, try runOptions.pipeline(model)).make()
    }
  }

  private func makeOne(_ sound: String) throws {
    guard let output else { return }
    var terminal = Terminal(quiet: quiet)
    let pipeline = try runOptions.pipeline(model)
    let file = try OutputFile(output, keeping: [model, sound])
    let folder = try dumpTensors.map { try OutputFolder($0) }
    let picture: Picture
    do {
      picture = try pipeline.generate(
        from: soundOptions.selection(sound), settings: settings, dump: folder.map { TensorDump(folder: $0.path) },
        progress: { terminal.show($0) })
    } catch {
      folder?.abandon()
      throw error
    }
    try file.finish(try picture.png())
    terminal.say(
      "\(output): \(picture.width) x \(picture.height), \(terminal.tenths(terminal.elapsed)) s, peak "
        + "\(ByteCount.describe(ProcessMemory.now().peakResident)) in RAM")
    if json { print(report(picture, output, terminal).text) }
  }

  // MARK: Settings

  var seeds: [UInt64] { seed.isEmpty ? [0] : seed }

  /// What only the command can know to be wrong.
  private func check() throws(AudioTokenError) {
    guard output != nil || pictures != nil else {
      throw AudioTokenError(
        .usage, "There is no place for the picture; give -o FILE, or --pictures FOLDER, or both.")
    }
    if let twice = seeds.indices.first(where: { seeds[..<$0].contains(seeds[$0]) }) {
      throw AudioTokenError(.usage, "--seed \(seeds[twice]) is given twice; each seed makes one picture of a sound.")
    }
    guard output != nil || scale == 1 else {
      throw AudioTokenError(
        .usage, "--scale \(scale) is for the sheet, as single pictures keep their pixels; give -o FILE too.")
    }
    guard dumpTensors == nil || (sound.count == 1 && seeds.count == 1 && scale == 1 && pictures == nil) else {
      throw AudioTokenError(
        .usage, "--dump-tensors is for one picture; give one sound and one seed, and neither --scale nor --pictures.")
    }
  }

  var settings: GenerationSettings {
    var settings = GenerationSettings()
    settings.prompt = prompt
    settings.negativePrompt = negative
    settings.steps = steps
    settings.guidance = guidance
    settings.sampler = sampler
    settings.seed = seeds[0]
    settings.width = width
    settings.height = height
    settings.maxRAM = memoryOptions.maxRam?.bytes
    return settings
  }

  private func report(_ picture: Picture, _ output: String, _ terminal: Terminal) -> JSONText {
    .object([
      ("output", .string(output)), ("width", .integer(picture.width)), ("height", .integer(picture.height)),
      ("seconds", .number(terminal.elapsed)),
      ("peak_resident_bytes", .integer(ProcessMemory.now().peakResident)),
      ("settings", .object(picture.provenance.map { ($0.key, .string($0.value)) })), ("stages", terminal.report),
    ])
  }
}
