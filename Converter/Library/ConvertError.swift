import Checkpoints
import Models
import WeightFile

/// Why a model cannot be converted.
package enum ConvertError: Error, CustomStringConvertible {
  case checkpoint(CheckpointError)
  case output(WeightFileError)
  case unsupported(file: String, key: String, found: String, expected: String)
  case missing(tensor: String, files: [String], spellings: [String])
  case shape(file: String, tensor: String, found: [Int], expected: [Int])
  case notFinite(file: String, tensor: String)
  case mismatch(file: String, what: String, found: Int, expected: Int)
  case configuration(file: String, key: String, found: String, expected: String)
  case schedule(file: String, reason: String)
  case unusedOption(String, folder: String)
  case tooLarge(file: String, tensor: String)
  case unusedTensor(file: String, tensor: String)
  case unusedLora(file: String, tensor: String)
  case tokenizer(file: String, reason: String)
  case noTokenizer(model: String)

  package var description: String {
    switch self {
    case .checkpoint(let error): error.description
    case .output(let error): error.description
    case .unsupported(let file, let key, let found, let expected):
      "\(file): \(key) is \(found), expected \(expected); this kind of model cannot be converted."
    case .missing(let tensor, let files, let spellings):
      "\(files.joined(separator: ", ")): no tensor for \(tensor), expected \(spellings.joined(separator: " or ")); check that "
        + "the weights and the configuration belong together."
    case .shape(let file, let tensor, let found, let expected):
      "\(file): \(tensor) has shape \(found), expected \(expected); check that the weights and the configuration belong together."
    case .notFinite(let file, let tensor):
      "\(file): \(tensor) has values that are no finite numbers, expected finite weights; download it again."
    case .mismatch(let file, let what, let found, let expected):
      "\(file): \(what) is \(found), expected \(expected) as in the other parts; "
        + (what.hasPrefix(Stage.projector.rawValue)
          ? "give an embedder that was trained for this Stable Diffusion and this BEATs."
          : "check that the parts belong to one model.")
    case .configuration(let file, let key, let found, let expected):
      "\(file): \(key) is \(found), expected \(expected); restore the values that the model was published with."
    case .schedule(let file, let reason): "\(file): \(reason)"
    case .unusedOption(let option, let folder):
      "\(option) is for models in a single file, and \(folder) is a folder, which says that itself; leave the option out."
    case .tooLarge(let file, let tensor):
      "\(file): \(tensor) has values beyond 65504, the largest of 16 bits; convert with --weights int8 or f32."
    case .unusedTensor(let file, let tensor):
      "\(file): \(tensor) has no place in the network that the configuration describes, so the result would be another "
        + "one; check that the weights and the configuration belong together."
    case .unusedLora(let file, let tensor):
      "\(file): \(tensor) belongs to no attention projection of this UNet; give a LoRA that was trained for this model."
    case .tokenizer(let file, let reason): "\(file): \(reason); take the tokenizer folder of the original model."
    case .noTokenizer(let model):
      "\(model) holds no tokenizer and CLIP's merges are not installed beside this program; give --tokenizer FOLDER with "
        + "vocab.json and merges.txt."
    }
  }
}

/// Runs `body`, turning its error into one of ours.
func converting<Result>(_ body: () throws(CheckpointError) -> Result) throws(ConvertError) -> Result {
  do { return try body() } catch { throw .checkpoint(error) }
}
func writing<Result>(_ body: () throws(WeightFileError) -> Result) throws(ConvertError) -> Result {
  do { return try body() } catch { throw .output(error) }
}
