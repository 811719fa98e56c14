import AudioToken
import WeightFile

/// Where a comparison is written: a folder with `report.md`, `report.json` and `pictures.png`. They are opened before the
/// work and appear after it.
package final class QualityReport {
  private let folder: OutputFolder
  private let files: [AtomicFile]
  private var isDone = false

  /// - Parameter inputs: files that are read, which may not be replaced.
  package init(folder path: String, keeping inputs: [String]) throws(AudioTokenError) {
    do throws(OutputFileError) {
      let folder = try OutputFolder(path: path)
      self.folder = folder
      files = try Self.open(in: folder, keeping: inputs)
    } catch {
      throw AudioTokenError(.output, error.description)
    }
  }

  private static func open(in folder: OutputFolder, keeping inputs: [String]) throws(OutputFileError) -> [AtomicFile] {
    do throws(OutputFileError) {
      var files: [AtomicFile] = []
      for name in ["report.md", "report.json", "pictures.png"] {
        files.append(try AtomicFile(path: "\(folder.path)/\(name)", keeping: inputs))
      }
      return files
    } catch {
      folder.abandon()
      throw error
    }
  }

  deinit { abandon() }

  package func write(_ quality: Quality) throws(AudioTokenError) {
    let contents = [
      Array(quality.markdown().utf8), Array((quality.json.text + "\n").utf8), try quality.sheet().png(),
    ]
    do throws(OutputFileError) {
      for (file, bytes) in zip(files, contents) { try file.write(bytes) }
      for file in files { try file.commit() }
    } catch {
      throw AudioTokenError(.output, error.description)
    }
    isDone = true
  }

  private func abandon() {
    guard !isDone else { return }
    for file in files { file.cancel() }
    folder.abandon()
  }
}

extension Quality {
  /// How many times differences are shown.
  private static var gain: Int { 8 }

  static func layout(pairs: Int, width: Int, height: Int) throws(AudioTokenError) -> ContactSheet.Layout {
    try ContactSheet.Layout(
      rows: pairs, columns: 3, tileWidth: width, tileHeight: height, scale: min(32, max(1, 256 / width)))
  }

  /// For each pair a row: the float model's picture, this model's, and the difference; small ones enlarged.
  package func sheet() throws(AudioTokenError) -> Picture {
    guard let first = pairs.first?.exact else {
      throw AudioTokenError(.usage, "There is nothing to compare; give a sound and a seed.")
    }
    let layout = try Self.layout(pairs: pairs.count, width: first.width, height: first.height)
    var sheet = ContactSheet(layout)
    for (row, pair) in pairs.enumerated() {
      sheet.place(pair.exact.pixels, row: row, column: 0)
      sheet.place(pair.picture.pixels, row: row, column: 1)
      let difference = zip(pair.picture.pixels, pair.exact.pixels).map { found, expected in
        UInt8(min(255, Self.gain * abs(Int(found) - Int(expected))))
      }
      sheet.place(difference, row: row, column: 2)
    }
    return Picture(
      width: layout.width, height: layout.height, pixels: sheet.pixels,
      provenance: [("Software", "audiotoken-convert"), ("audiotoken:model", modelHash)])
  }
}
