import ArgumentParser
import AudioToken
import Converter
import Foundation
import Quality
import Tensors
import WeightFile

extension WeightType: ExpressibleByArgument {}
extension CodeForm: ExpressibleByArgument {}
extension ConvolutionForm: ExpressibleByArgument {}

extension ConvertError {
  /// As in `sysexits.h`.
  fileprivate var exitCode: Int32 {
    switch self {
    case .unusedOption: 64
    case .checkpoint(.missing), .checkpoint(.unreadable), .checkpoint(.folder), .checkpoint(.notFolder): 66
    case .output(.unreadable): 66
    case .output: 73
    default: 65
    }
  }
}

@main
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audiotoken-convert",
    abstract: "Convert Stable Diffusion, BEATs and an AudioToken embedder to one weight file.",
    discussion: """
      Checkpoints are read without executing anything in them, one tensor at a time.

      With --quality the result is compared with the same conversion in floats. Two files that are there are compared by \
      audiotoken-convert compare, which has a --help of its own.

      EXIT CODES: 0 success; 64 a setting that cannot be; 65 a checkpoint that is not what it should be; 66 a file that is \
      missing or cannot be read; 71 the system refuses memory; 73 the output cannot be written; 130 interrupted.
      """)

  @Option(help: "Stable Diffusion: a diffusers folder, or one .safetensors or .ckpt file with the original names.")
  var sd: String

  @Option(help: "The BEATs checkpoint, such as BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt.")
  var beats: String

  @Option(help: "AudioToken's embedder, such as embedder_learned_embeds.bin.")
  var embedder: String

  @Option(help: "An attention LoRA to fold in, such as lora_layers_learned_embeds.bin.")
  var lora: String?

  @Option(help: "A folder with vocab.json and merges.txt; by default the model's own, or CLIP's for a single file.")
  var tokenizer: String?

  @Option(help: "For a single file: a diffusers folder whose config.json files say what the tensors' shapes do not.")
  var config: String?

  @Option(help: "For a single file of SD 2: epsilon or v_prediction.")
  var prediction: String?

  @Option(help: "How to store weights: int8, f16 or f32.")
  var weights = WeightType.int8

  @Option(
    help: """
      Which int8 codes may lie side by side: any (full), or those that AVX2 and SSE4.1 multiply faster (pairs) and \
      fastest (fours); by default the fastest that adds at most 3 dB to the weights' error, which is full with weights that \
      nobody trained.
      """)
  var codes: CodeForm?

  @Option(
    help: """
      How 3x3 convolutions are computed: by Winograd's algorithm (winograd), which is faster on x86 and on ARM without the dot \
      product, or tap by tap (direct), for ARM with it (Pi 5).
      """)
  var convolutions = ConvolutionForm.winograd

  @Option(help: "The licence of the weights, to be written into the file.")
  var licence: String?

  @Option(name: .shortAndLong, help: "The weight file to write.")
  var output: String

  @Option(
    help: ArgumentHelp(
      "Compare the result with the same conversion in floats, and write a report and pictures into this folder.",
      valueName: "folder"))
  var quality: String?

  @OptionGroup var comparison: ComparisonOptions

  @Flag(help: "Print only errors.")
  var quiet = false

  static func main() {
    Interruption.install()
    let compares = CommandLine.arguments.dropFirst().first == "compare"
    do {
      if compares {
        return try runParsed(try CompareCommand.parseAsRoot(Array(CommandLine.arguments.dropFirst(2))))
      }
      try runParsed(try parseAsRoot())
    } catch let error as ConvertError {
      fail(error.description, error.exitCode)
    } catch let error as AudioTokenError {
      fail(error.description, error.kind.rawValue)
    } catch {
      if compares { CompareCommand.exit(withError: error) }
      exit(withError: error)
    }
  }

  private static func runParsed(_ command: any ParsableCommand) throws {
    var command = command
    try command.run()
  }

  private static func fail(_ sentence: String, _ code: Int32) -> Never {
    FileHandle.standardError.write(Data("audiotoken-convert: \(sentence)\n".utf8))
    Foundation.exit(code)
  }

  mutating func run() throws {
    let start = Date()
    let job = ConversionJob(
      stableDiffusion: sd, beats: beats, embedder: embedder, lora: lora, tokenizer: tokenizer, configFolder: config,
      predictionType: prediction, weights: weights, codes: codes,
      convolutions: convolutions, output: output, licence: licence)
    if quality == nil { try comparison.requireUnused() }
    let converter = try ModelConverter(job)
    let comparing = try quality.map { try QualityRun(job, folder: $0, comparison.settings()) }
    var display = ConversionDisplay(quiet: quiet)
    let report = try converter.run { display.show($0) }
    display.finish()
    if !quiet {
      print(ConversionDisplay.table(report, weights))
      let seconds = Int(Date().timeIntervalSince(start).rounded())
      print("\(output): \(ByteCount.describe(report.fileBytes)) in \(seconds) s, hash \(report.contentHash)")
    }
    try comparing?.run(&display, quiet: quiet)
  }
}
