import ArgumentParser
import AudioToken
import Converter
import Foundation
import Quality
import WeightFile

extension SamplerChoice: ExpressibleByArgument {}

/// What two models are compared on.
struct ComparisonOptions: ParsableArguments {
  @Option(help: "A sound to compare on. May be given several times.")
  var sound: [String] = []

  @Option(help: "A seed of the initial noise, 0 by default. May be given several times.")
  var seed: [UInt64] = []

  @Option(help: "Sampling steps of each picture, 20 by default.")
  var steps: Int?

  @Option(help: "How strictly to follow the prompt, 7.5 by default.")
  var guidance: Float?

  @Option(help: "The sampler: pndm or ddim; the model's own by default.")
  var sampler: SamplerChoice?

  func settings() throws(AudioTokenError) -> ComparisonSettings {
    try ComparisonSettings(
      sounds: sound, seeds: seed, steps: steps ?? 20, guidance: guidance ?? GenerationSettings().guidance,
      sampler: sampler)
  }

  /// For conversions that compare nothing.
  func requireUnused() throws(AudioTokenError) {
    let given = [
      ("--sound", !sound.isEmpty), ("--seed", !seed.isEmpty), ("--steps", steps != nil),
      ("--guidance", guidance != nil), ("--sampler", sampler != nil),
    ]
    for (option, isGiven) in given where isGiven {
      throw AudioTokenError(.usage, "\(option) says how to compare; give --quality FOLDER too, or leave it out.")
    }
  }
}

/// `audiotoken-convert compare`
struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audiotoken-convert compare",
    abstract: "Compare a weight file with one of the same model in floats, on real sounds.",
    discussion: """
      The float file is made by audiotoken-convert with --weights f32. Shown are PSNR and SSIM of the pictures, the error of \
      what each stage gives, and the layers whose output suffers most.
      """)

  @Argument(help: "The weight file.")
  var model: String

  @Argument(help: "The same model in floats.")
  var original: String

  @OptionGroup var comparison: ComparisonOptions

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("A folder for report.md, report.json and pictures.png.", valueName: "folder"))
  var output: String?

  @Flag(help: "Print only errors.")
  var quiet = false

  func run() throws {
    let settings = try comparison.settings()
    let models = try Comparison(model: model, original: original)
    let report = try output.map { folder throws(AudioTokenError) in
      try QualityReport(folder: folder, keeping: [model, original] + settings.sounds)
    }
    var display = ConversionDisplay(quiet: quiet)
    let quality = try models.run(settings) { display.show($0) }
    display.finish()
    if !quiet { print(quality.markdown(isBrief: true), terminator: "") }
    try report?.write(quality)
    if let output, !quiet { print("\(output): report.md, report.json, pictures.png") }
  }
}

/// The comparison that follows a conversion with `--quality`: with the same model in floats, which is there only meanwhile.
struct QualityRun {
  private let job: ConversionJob
  private let folder: String
  private let report: QualityReport
  private let settings: ComparisonSettings

  init(_ job: ConversionJob, folder: String, _ settings: ComparisonSettings) throws {
    self.job = job
    self.folder = folder
    self.settings = settings
    report = try QualityReport(folder: folder, keeping: settings.sounds)
  }

  func run(_ display: inout ConversionDisplay, quiet: Bool) throws {
    let models = try open(&display)
    let quality = try models.run(settings) { display.show($0) }
    display.finish()
    if !quiet { print("\n" + quality.markdown(isBrief: true), terminator: "") }
    try report.write(quality)
    if !quiet { print("\(folder): report.md, report.json, pictures.png") }
  }

  /// Converts to floats beside the output and opens both; the floats have no name any more then.
  private func open(_ display: inout ConversionDisplay) throws -> Comparison {
    let output = URL(fileURLWithPath: job.output)
    let name = ".\(output.lastPathComponent.prefix(50)).floats-\(getpid())"
    var floats = job
    floats.weights = .float32
    floats.output = output.deletingLastPathComponent().appendingPathComponent(name).path
    Interruption.register(floats.output)
    defer {
      unlink(floats.output)
      Interruption.forget(floats.output)
    }
    _ = try ModelConverter(floats).run { display.show($0) }
    return try Comparison(model: job.output, original: floats.output)
  }
}
