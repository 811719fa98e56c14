import ArgumentParser
import AudioToken
import WeightFile

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
