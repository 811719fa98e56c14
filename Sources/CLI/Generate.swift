import ArgumentParser
import AudioToken
import Glibc
import WeightFile

extension SamplerChoice: ExpressibleByArgument {}

struct Generate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make a picture from a sound.",
    discussion:
      "The PNG carries the settings and the hashes of model and sound as text, so that it says how it was made.")

  @Argument(help: "The weight file.")
  var model: String

  @Argument(help: "The sound: WAV, FLAC, Ogg, MP3 or whatever else libsndfile reads.")
  var sound: String

  @Option(name: .shortAndLong, help: "The picture to write, a PNG file.")
  var output: String

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

  @Option(help: "The seed of the initial noise.")
  var seed: UInt64 = 0

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
    if json { print(report(picture, terminal).text) }
  }

  private var settings: GenerationSettings {
    var settings = GenerationSettings()
    settings.prompt = prompt
    settings.negativePrompt = negative
    settings.steps = steps
    settings.guidance = guidance
    settings.sampler = sampler
    settings.seed = seed
    settings.width = width
    settings.height = height
    settings.maxRAM = memoryOptions.maxRam?.bytes
    return settings
  }

  private func report(_ picture: Picture, _ terminal: Terminal) -> JSONText {
    .object([
      ("output", .string(output)), ("width", .integer(picture.width)), ("height", .integer(picture.height)),
      ("seconds", .number(terminal.elapsed)),
      ("peak_resident_bytes", .integer(ProcessMemory.now().peakResident)),
      ("settings", .object(picture.provenance.map { ($0.key, .string($0.value)) })), ("stages", terminal.report),
    ])
  }
}

struct Encode: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Write the audio token of a sound as a NumPy array.")

  @Argument(help: "The weight file.")
  var model: String

  @Argument(help: "The sound.")
  var sound: String

  @Option(name: .shortAndLong, help: "The array to write, an .npy file of f32 [token width].")
  var output: String

  @OptionGroup var soundOptions: SoundOptions
  @OptionGroup var runOptions: RunOptions

  @Flag(help: "Show no progress.")
  var quiet = false

  func run() throws {
    var terminal = Terminal(quiet: quiet)
    let pipeline = try runOptions.pipeline(model)
    try OutputFile(output, keeping: [model, sound]).abandon()
    let token = try pipeline.audioToken(of: soundOptions.selection(sound)) { terminal.show($0) }
    do throws(OutputFileError) {
      try NumpyWriter.write(token, shape: [token.count], to: output)
    } catch {
      throw AudioTokenError(.output, error.description)
    }
    terminal.say("\(output): \(token.count) values, \(terminal.tenths(terminal.elapsed)) s")
  }
}

/// An output that is opened before the work and named after it.
struct OutputFile {
  private let file: AtomicFile

  /// - Parameter inputs: the files that are read, which it may not replace.
  init(_ path: String, keeping inputs: [String]) throws(AudioTokenError) {
    do throws(OutputFileError) { file = try AtomicFile(path: path, keeping: inputs) } catch {
      throw AudioTokenError(.output, error.description)
    }
  }

  func finish(_ bytes: [UInt8]) throws(AudioTokenError) {
    do throws(OutputFileError) {
      try file.write(bytes)
      try file.commit()
    } catch {
      throw AudioTokenError(.output, error.description)
    }
  }

  func abandon() { file.cancel() }
}

/// A folder for outputs, made unless it is there.
struct OutputFolder {
  let path: String
  private let isNew: Bool

  init(_ path: String) throws(AudioTokenError) {
    isNew = mkdir(path, 0o777) == 0
    var code = errno
    if isNew || code == EEXIST {
      // The slash makes the system refuse what is no folder.
      code = access(path + "/", W_OK | X_OK) == 0 ? 0 : errno
    }
    guard code == 0 else {
      throw AudioTokenError(
        .output,
        "The folder \(path) cannot be made or written to (\(String(cString: strerror(code)))); choose another one.")
    }
    self.path = path
  }

  /// Removes the folder again if it is new and empty.
  func abandon() {
    if isNew { rmdir(path) }
  }
}
